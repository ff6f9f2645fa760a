"""The lazy table of built-in middleware."""
