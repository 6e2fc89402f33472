"""Widgets that can each be used alone."""
