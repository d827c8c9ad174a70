"""Whether a function can be found again by its name, and by which names it may be.

A record or a message names a function as `module:qualname`. Whoever can write into the
store could name `os:system`; so only functions of the project's own are ever looked up:
those of the setting `modules`, or without it, those whose source is neither the
standard library's nor an installed package's.
"""

from __future__ import annotations

import sys
import sysconfig
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType, MethodType

from postlude import _names
from postlude._settings import in_force
from postlude.exceptions import ArgumentError

__all__ = ["path", "refusal", "resolve"]

_PLACES = {"site-packages", "dist-packages"}
"""Folders of packages, those of other installations included."""


def path(thing: object) -> str:
    """Give `module:qualname` of a function or class itself, not of what it wraps."""
    module = getattr(thing, "__module__", None)
    return f"{module}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"


_path_of = path
_found: dict[FunctionType, object] = {}
"""Functions that were found by their names, and the settings that allowed it: whoever
defers, defers the same few again and again."""
_MOST_FOUND = 1_000


def refusal(thing: object) -> str | None:
    """Say why *thing* cannot be found again by its name; None if it can."""
    if type(thing) is not FunctionType:
        return _refusal(thing)
    settings = in_force()
    if _found.get(thing) is settings:
        return None
    reason = _refusal(thing)
    if reason is None:
        if len(_found) >= _MOST_FOUND:  # functions that are made at run time
            _found.clear()
        _found[thing] = settings
    return reason


def _refusal(thing: object) -> str | None:  # noqa: PLR0911 - one reason each
    if isinstance(thing, MethodType) and not isinstance(thing.__self__, type):
        return "it is a method of an object, and the object is not stored"
    if not isinstance(thing, (FunctionType, MethodType, type)):
        return f"it is {_names.described(thing)}, not a function of a module"
    module, qualname = thing.__module__, thing.__qualname__
    if "<lambda>" in qualname:
        return "it is a lambda, which has no name"
    if module is None:
        return "it does not say which module it is of"
    if "<locals>" in qualname:
        return f"it is defined inside {qualname.partition('.<locals>')[0]}()"
    if (reason := forbidden(module)) is not None:
        return reason
    try:
        found: object = sys.modules[module]
        for part in qualname.split("."):
            found = getattr(found, part)
    except (KeyError, AttributeError):
        return f"{module} has no {qualname}"
    if found != thing:
        return f"{module}:{qualname} is another object by now; a decorator replaced it"
    return None


def resolve(path: str) -> object:
    """Give the function or class of that name, and import its module.

    Raises:
        ArgumentError: the name is not allowed, or there is no such thing (any more).
    """
    module, _, qualname = path.partition(":")
    if (reason := forbidden(module)) is not None:
        raise ArgumentError(
            f"{path!r} is not looked up: {reason}. Usually the project is installed as "
            f"a package. Allow it: POSTLUDE_MODULES={module.partition('.')[0]}."
        )
    try:
        found: object = import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except Exception as exc:  # a module may raise anything when it is imported
        raise ArgumentError(
            f"{path!r} cannot be found ({type(exc).__name__}: {exc}). Usually it was "
            "renamed or removed, or the command was started outside the project's "
            "folder. Start it there, or forget the record."
        ) from exc
    if _path_of(found) != path or (reason := refusal(found)) is not None:
        # `shop.views:os.system` would lead out of the allowed modules.
        raise ArgumentError(
            f"{path!r} is something that {module} has from elsewhere, or no function "
            "any more. Usually it was moved. Run it by hand, or forget the record."
        )
    return found


def forbidden(module: str) -> str | None:  # noqa: PLR0911 - one reason each
    """Say why functions of *module* are not looked up by name; None if they are."""
    if module == "__main__":
        return "it is defined in the program's main file, which has no importable name"
    if not all(part.isidentifier() for part in module.split(".")):
        return f"{module!r} is no name of a module"
    allowed = in_force().modules
    if allowed:
        if any(module == name or module.startswith(f"{name}.") for name in allowed):
            return None
        return f"the module {module} is not among the setting modules"
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return f"the module {module} belongs to Python"
    if _is_installed(top):
        return f"the module {module} is an installed package, not the project's own"
    return None


@cache
def _is_installed(top: str) -> bool:
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return False  # not there: the lookup says so
    if spec is None:
        return False
    places = list(spec.submodule_search_locations or ())
    if spec.origin is not None:
        places.append(spec.origin)
    roots = [Path(sysconfig.get_path(key)).resolve() for key in _PATHS]
    return any(
        _PLACES & set(path.parts) or any(map(path.is_relative_to, roots))
        for path in (Path(place).resolve() for place in places)
    )


_PATHS = ("purelib", "platlib", "stdlib", "platstdlib")
