"""What a person sees. Imports neither torch nor anything that does."""
