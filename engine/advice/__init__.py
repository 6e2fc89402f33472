"""What to set, and why: facts in, a plan out. Pure functions, no files, no network, nothing heavy."""
