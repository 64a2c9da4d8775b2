"""Built-in clue sources."""
