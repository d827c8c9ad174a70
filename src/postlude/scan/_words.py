"""Sets of names, written as a line of words."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """Give the words of *text*."""
    return frozenset(text.split())
