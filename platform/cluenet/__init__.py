"""ClueNet on Ray: clue-aware video question answering. Importing this loads neither torch nor Ray."""

__version__ = "0.1.0"
