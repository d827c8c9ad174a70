"""What `@DeferScope()` makes of a function."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from postlude import _names
from postlude.exceptions import GENERATOR_BLOCK

if TYPE_CHECKING:
    from postlude._scope import DeferScope

_F = TypeVar("_F", bound=Callable[..., Any])


def each_call_in(block: Callable[[], DeferScope], fn: _F) -> _F:
    """Put every call of *fn*, sync or async, in a block of its own.

    Raises:
        TypeError: *fn* is a generator function, or cannot be called.
    """
    try:
        asynchronous = _names.is_async(fn)
    except TypeError as exc:
        if callable(fn):
            name = _names.qualified(fn)
            raise TypeError(GENERATOR_BLOCK.format(name=name)) from None
        raise exc from None

    if asynchronous:

        @wraps(fn)
        async def unit(*args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportRedeclaration]  # one or the other
            async with block():
                return await fn(*args, **kwargs)

    else:

        @wraps(fn)
        def unit(*args: Any, **kwargs: Any) -> Any:
            with block():
                return fn(*args, **kwargs)

    return cast("_F", unit)
