"""The lazy table of built-in adapters."""
