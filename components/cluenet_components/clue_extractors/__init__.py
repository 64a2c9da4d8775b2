"""Built-in clue extractors."""
