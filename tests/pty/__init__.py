"""Foreign text on a real terminal: hostile strings, the places they come from, and every byte that came of them."""
