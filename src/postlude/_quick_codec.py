"""The quick roads past `_codec`: most calls are given numbers and short texts."""

# The checks ask for the types of anything.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

TAG = "$"
"""The key that tells what JSON has no word for from what it has."""
DEPTH = 50
_FEW = 16
_SHORT = 1_000
_BITS = 1_000
"""Arguments, and characters or bits of each, that are well within what is carried."""
_TEXT = frozenset((str,))
_ZONES: tuple[dt.tzinfo | None, ...] = (None, dt.UTC)


def is_text(value: str) -> bool:
    """Tell whether a text has no half of a surrogate pair in it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _always(_value: object) -> bool:
    return True


def _is_number(value: int) -> bool:
    return value.bit_length() <= _BITS


lasting: dict[type[Any], Callable[[Any], bool]] = {
    type(None): _always,
    bool: _always,
    float: _always,
    dt.datetime: lambda value: value.tzinfo in _ZONES,
    dt.date: _always,
    dt.timedelta: _always,
    uuid.UUID: _always,
    Decimal: _always,
}
"""Types, beside numbers and texts, whose values never change; and which of them can be
encoded later."""


def lasts(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether these arguments can be encoded as well later as now.

    A no may be wrong, and costs only that they are encoded now. Mostly it is a yes, and
    the text would never be read.
    """
    values = (*args, *kwargs.values()) if kwargs else args
    if len(values) > _FEW:
        return False
    for value in values:
        kind = type(value)
        if kind is int:
            if value.bit_length() > _BITS:
                return False
        elif kind is str:
            if len(value) > _SHORT or not value.isascii():
                return False
        elif (check := lasting.get(kind)) is None or not check(value):
            return False
    return True


_JSON: dict[type[Any], Callable[[Any], bool]] = {
    type(None): _always,
    bool: _always,
    int: _is_number,
    float: lambda value: value - value == 0.0,  # neither infinite nor none
    str: lambda value: value.isascii() or is_text(value),
    list: _always,
    dict: lambda value: TAG not in value and _TEXT.issuperset(map(type, value)),
}


def is_json(level: Sequence[Any], room: int) -> bool:
    """Tell whether these are nothing but what JSON knows, of a size that may do.

    A no may be wrong: `_codec` has the last word, and the reason. Level by level, so
    that neither depth nor a cycle does harm.
    """
    for _ in range(DEPTH):
        below: list[Any] = []
        room -= len(level)
        for value in level:
            kind = type(value)
            if kind is str:
                room -= len(value)
            check = _JSON.get(kind)
            if room < 0 or check is None or not check(value):
                return False
            if kind is list:
                below += value
            elif kind is dict:
                below += value
                below += value.values()
        if not below:
            return True
        level = below
    return False
