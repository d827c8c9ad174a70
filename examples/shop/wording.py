"""Numbers as people read them."""

from __future__ import annotations


def ms(value: float | None) -> str:
    """Write milliseconds: one decimal below ten, none above."""
    if value is None:
        return "–"
    return f"{value:.1f} ms" if abs(value) < 10 else f"{value:,.0f} ms"


def offset(value: float | None) -> str:
    """Write milliseconds with a sign: before or after some moment."""
    if value is None:
        return "–"
    return ("+" if value >= 0 else "−") + ms(abs(value))


def times(value: float) -> str:
    """Write a ratio."""
    return f"{value:.1f} ×"
