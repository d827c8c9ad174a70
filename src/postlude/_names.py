"""From a callable to its dotted name, and whether it is async."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from postlude.exceptions import COROUTINE, GENERATOR, NOT_CALLABLE

# inspect.CO_* of the data model; inspect itself costs a dozen modules to import.
CO_COROUTINE = 0x80
_GENERATOR = 0x20 | 0x200
UNUSUAL = CO_COROUTINE | _GENERATOR
"""Code flags of a function that does not run to its end when it is called."""


def unwrapped(fn: object) -> object:
    """Give the function under partials, methods and callable objects."""
    while True:
        if isinstance(fn, FunctionType):
            return fn
        if isinstance(fn, partial):
            fn = fn.func
        elif isinstance(fn, MethodType):
            fn = fn.__func__
        elif isinstance(call := getattr(type(fn), "__call__", None), FunctionType):  # noqa: B004 - not a test for callability
            return call
        else:
            return fn


def is_async(fn: Callable[..., object]) -> bool:
    """Tell whether calling *fn* gives a coroutine, as far as its code says.

    A plain function that returns an awaitable (`lambda: coro()`) is not seen here; its
    result is awaited by whoever runs it.

    Raises:
        TypeError: *fn* is not callable, a coroutine object, or a generator function.
    """
    function = fn if isinstance(fn, FunctionType) else unwrapped(fn)
    if isinstance(function, FunctionType):
        flags = function.__code__.co_flags
        if flags & _GENERATOR:
            name = qualified(fn)
            raise TypeError(GENERATOR.format(name=name, short=short(fn)))
        return bool(flags & CO_COROUTINE)
    if not callable(fn):
        raise _not_callable(fn)
    return False


def _not_callable(value: Any) -> TypeError:
    if hasattr(value, "cr_code") and hasattr(value, "close"):
        value.close()  # the error says it all; no "was never awaited" on top
        name = str(getattr(value, "__qualname__", "?"))
        return TypeError(COROUTINE.format(name=name, short=name.rpartition(".")[2]))
    return TypeError(NOT_CALLABLE.format(what=described(value)))


def is_awaitable(result: object) -> bool:
    """Tell whether a call's result must be awaited; a proxy may raise when asked."""
    try:
        return hasattr(result, "__await__")
    except BaseException:  # noqa: BLE001 - whatever it is, it is no awaitable
        return False


def described(value: object) -> str:
    """Name a value's type for an error text, with its article."""
    kind = type(value).__qualname__
    return "None" if value is None else f"an object of type {kind!r}"


def qualified(fn: object) -> str:
    """Give `module:qualname` of what *fn* calls in the end."""
    while isinstance(fn, partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None)
    if name is None:  # an object with __call__
        fn = type(fn)
        name = fn.__qualname__
    return f"{getattr(fn, '__module__', None) or 'builtins'}:{name}"


def short(fn: object) -> str:
    """Give the last part of the name of *fn*."""
    return qualified(fn).rpartition(":")[2].rpartition(".")[2]


def parameters(fn: object) -> tuple[str, ...]:
    """Give the names of the positional parameters of *fn*, without a bound one."""
    function = unwrapped(fn)
    code: Any = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return ()
    names = code.co_varnames[: code.co_argcount]
    while isinstance(fn, partial):
        fn = fn.func
    return names if fn is function else names[1:]


def bound(
    fn: object, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Give all arguments of a call, those that partials brought included."""
    while isinstance(fn, partial):
        args = (*fn.args, *args)
        kwargs = {**fn.keywords, **kwargs}
        fn = fn.func
    return args, kwargs


_sites: dict[tuple[int, int], tuple[CodeType, str]] = {}
"""Places that were asked for. Each holds its code, so that the id stays its own."""
_MOST_SITES = 1_000


def site(code: CodeType | None, lasti: int) -> str:
    """Give `file:line in function` of an instruction.

    Kept as code and offset until somebody asks: the line costs more than the call. A
    program has few places that defer, and with a failure store each call is asked.
    """
    if code is None:
        return "unknown"
    key = id(code), lasti
    if (known := _sites.get(key)) is not None:
        return known[1]
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= lasti < end and number is not None:
            line = number
    place = f"{code.co_filename}:{line} in {code.co_qualname}"
    if len(_sites) >= _MOST_SITES:  # code that is made at run time
        _sites.clear()
    _sites[key] = code, place
    return place
