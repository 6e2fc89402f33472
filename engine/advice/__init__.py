"""The recommender: facts go in, a plan with reasons comes out. Pure functions."""
