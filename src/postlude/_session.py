"""A session that can be read but not changed: its response has left (B7)."""

from __future__ import annotations

from typing import Any, NoReturn

from postlude.exceptions import TOO_LATE, TooLateError


class SealedSession(dict[str, Any]):
    """What a session becomes once its response has left; a change is an error."""

    def _too_late(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise TooLateError(TOO_LATE.format(what="the session"))

    __setitem__ = __delitem__ = _too_late
    pop = popitem = clear = update = setdefault = _too_late  # pyright: ignore[reportAssignmentType]  # they take anything and give nothing
    __ior__ = _too_late
