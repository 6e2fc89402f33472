"""Where models come from, and what is known of them without loading weights."""
