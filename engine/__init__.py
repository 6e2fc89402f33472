"""Everything ftui does without a screen. Imports no textual; see docs/architecture.md for the rooms."""

__version__ = "0.1.0"
