"""Built-in clue filters."""
