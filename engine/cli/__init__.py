"""The verbs of the plain command line."""
