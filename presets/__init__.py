"""Packaged data: one YAML a preset, and the rows it brings."""
