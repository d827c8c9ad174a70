"""Wrapping methods that every subclass of a library's class has for itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, cast

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]


def wrap(owner: Any, wrappers: dict[str, Wrapper]) -> None:
    """Wrap methods of one class. What they already do for Postlude is not repeated."""
    for name, wrapper in wrappers.items():
        original = getattr(owner, name, None)
        if original is not None and not hasattr(original, "_postlude"):
            wrapped: Any = wraps(original)(wrapper(original))
            wrapped._postlude = True
            setattr(owner, name, wrapped)


def wrap_subclasses(base: Any, wrappers: dict[str, Wrapper]) -> None:
    """Wrap methods of a class and of all below it, also of those to be made yet.

    An overriding method that calls its super is told of twice, from the inside out.
    """

    def touch(cls: Any, /, **kwargs: Any) -> None:
        parent: Any = cast("Any", super(base, cls))
        parent.__init_subclass__(**kwargs)
        wrap(cls, wrappers)

    if "__init_subclass__" not in vars(base):
        base.__init_subclass__ = classmethod(touch)
    line = [base]
    for owner in line:
        wrap(owner, wrappers)
        line.extend(owner.__subclasses__())
