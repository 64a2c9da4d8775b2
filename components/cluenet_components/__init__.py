"""The built-in components: one class with a nested `Config` per file, one folder per kind."""
