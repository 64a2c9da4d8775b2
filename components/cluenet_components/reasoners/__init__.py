"""Built-in reasoners."""
