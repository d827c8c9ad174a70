"""Whether somebody may see the dashboard: closed unless a function says otherwise."""

from __future__ import annotations

import inspect
import logging
from typing import Any

from postlude._log import say

_MISSING = (
    "{name}() was called without authorize, and nobody would be let "
    "in. Usually the dashboard was mounted for a try. Say who may see it: "
    "{name}(authorize=lambda {argument}: ...), which gives True or False."
)
_ASYNC = (
    "{name}() got an async function as authorize, and nobody would await it there. "
    "Usually it was written for the ASGI dashboard. Pass a plain function."
)


MISSING: Any = object()
"""The default of `authorize`, which nobody can mean."""


def checked(authorize: Any, name: str, argument: str) -> Any:
    """Give *authorize*, if it can be asked.

    Raises:
        TypeError: it was forgotten, or is no function.
    """
    if not callable(authorize):
        raise TypeError(_MISSING.format(name=name, argument=argument))
    return authorize


def check_sync(authorize: Any, name: str) -> None:
    """Refuse what would have to be awaited.

    Raises:
        TypeError: *authorize* is async.
    """
    if is_async(authorize):
        raise TypeError(_ASYNC.format(name=name))


def is_async(function: Any) -> bool:
    """Tell whether a function, or an object that is called like one, is async."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - what it does is looked at
    )


def may(authorize: Any, request: object) -> bool:
    """Ask a sync *authorize*; what it raises means no."""
    try:
        return is_yes(authorize(request))
    except Exception as exc:  # noqa: BLE001 - whatever it is
        raised(exc)
        return False


def is_yes(answer: object) -> bool:
    """Tell whether an answer lets somebody in: True does, and nothing else.

    An object that merely counts as true, such as a coroutine or a user who is not
    signed in, is how doors are left open.
    """
    if answer is True:
        return True
    if answer is not False:
        say(
            logging.ERROR,
            "the dashboard's authorize gave %s and not True or False, so nobody is let "
            "in. Usually a user or a coroutine was returned. Return bool(...)",
            type(answer).__qualname__,
        )
    return False


def raised(exc: BaseException) -> None:
    """Note that the question itself failed, which means no."""
    text = "the dashboard's authorize raised, so nobody is let in"
    say(logging.ERROR, text, exc_info=exc)
