"""Run directories, their journal, and the processes that serve them."""
