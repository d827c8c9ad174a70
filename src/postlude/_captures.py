"""What a deferred call holds: its arguments, and what its function brings along.

Nothing here asks a value anything: a lazy object answers by loading. Types are compared
past `__class__`, containers are read past their own `__iter__`, `__dict__` past
`__getattribute__`; no `repr`, `str`, `==` or `isinstance` meets a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any, NamedTuple, cast

_MOST_ITEMS = 20
"""How many items of one list, tuple, set or dict are looked at."""


class Held(NamedTuple):
    """One value that a call holds, and where."""

    value: object
    place: str
    name: str | None
    """What stands for the value in the code of a fix."""
    items_of: str | None = None
    """The list or set whose items are all of one sort, as a rule."""


def everything(
    fn: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
) -> Iterator[Held]:
    """Give all values that a call holds, one level into containers and functions."""
    for held in _held(fn, args, kwargs or {}):
        yield held
        value = held.value
        if any(type(value) is kind for kind in _FUNCTIONS):
            yield from _held(value, (), {})
        else:
            yield from islice(_items(held), _MOST_ITEMS)


_FUNCTIONS = (FunctionType, MethodType, BuiltinMethodType, partial)


def fields(value: object) -> dict[str, Any]:
    """Read `__dict__` without waking a proxy or a lazy module."""
    try:
        return cast("dict[str, Any]", object.__getattribute__(value, "__dict__"))
    except AttributeError:
        return {}


def _held(
    fn: Any, args: tuple[object, ...], kwargs: dict[str, object]
) -> Iterator[Held]:
    while issubclass(type(fn), partial):
        args, kwargs = (*fn.args, *args), {**fn.keywords, **kwargs}
        fn = fn.func
    function = fn
    if type(fn) is MethodType or type(fn) is BuiltinMethodType:
        function = getattr(fn, "__func__", None)
        yield Held(fn.__self__, "the object whose method it is", None)
    elif type(fn) is not FunctionType:
        function = getattr(cast("Any", type(fn)), "__call__", None)  # noqa: B004 - not a test for callability
        yield Held(fn, "the object that is called", None)
    names: tuple[str, ...] = ()
    if type(function) is FunctionType:
        code = function.__code__
        names = code.co_varnames[int(function is not fn) : code.co_argcount]
    for i, value in enumerate(args):
        name = names[i] if i < len(names) else None
        yield Held(
            value, f"its argument `{name}`" if name else f"argument {i + 1}", name
        )
    for name, value in kwargs.items():
        yield Held(value, f"its argument `{name}`", name)
    if type(function) is FunctionType:
        yield from _enclosed(function)
        yield from _defaults(function, {*names[: len(args)], *kwargs})


def _enclosed(fn: FunctionType) -> Iterator[Held]:
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=False):
        try:
            value = cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue
        yield Held(value, f"`{name}`, which its body uses", name)


def _defaults(fn: FunctionType, given: set[str]) -> Iterator[Held]:
    """Give the defaults that apply: `lambda order=order: ...` is a way to capture."""
    code = fn.__code__
    values = fn.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    pairs = [*zip(names, values, strict=False), *(fn.__kwdefaults__ or {}).items()]
    for name, value in pairs:
        if name not in given:
            yield Held(value, f"the default of `{name}`", name)


_CONTAINERS: tuple[Any, ...] = (list, tuple, set, frozenset, dict)
"""Read by their own methods: a subclass may load something when it is iterated."""


def _items(held: Held) -> Iterator[Held]:
    value: Any = held.value
    bases = (base for base in _CONTAINERS if issubclass(type(value), base))
    kind = cast("Any", next(bases, None))
    if kind is None:
        return
    name = held.name or "items"
    by_key = kind is _CONTAINERS[-1]
    # Copied in one step: another thread may change the container.
    items: list[Any] = list(kind.items(value) if by_key else kind.__iter__(value))
    for i, item in enumerate(items):
        if by_key:
            key, item = item  # noqa: PLW2901 - a pair is what a dict's items are
            shown = repr(key)[:40] if type(key) is str or type(key) is int else "..."
            yield _item(held, item, f"{name}[{shown}]")
        elif kind is tuple:
            yield _item(held, item, f"{name}[{i}]")
        elif kind is list:
            yield _item(held, item, f"{name}[{i}]", name)
        else:
            yield Held(item, f"an item of {held.place}", "each", name)


def _item(held: Held, item: object, name: str, items_of: str | None = None) -> Held:
    return Held(item, f"`{name}` in {held.place}", name, items_of)
