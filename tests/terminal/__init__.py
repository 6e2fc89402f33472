"""What happens on a real pseudo-terminal: bytes, modes, sizes, hang-ups."""
