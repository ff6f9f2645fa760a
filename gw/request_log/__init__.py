"""Every exchange as a row in SQLite, written by a thread of its own, spilled to a file where SQLite cannot take it."""

from __future__ import annotations


class CannotWrite(Exception):
    """The database took nothing of what it was given; says why, in words for the operator."""


class BadRow(Exception):
    """Values that no try will bring into the table; those beside them may be fine."""
