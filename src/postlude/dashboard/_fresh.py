"""Looks at the store that several viewers share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar, cast

_T = TypeVar("_T")

_SHORTEST = 0.5
"""Seconds for which a look is good; a page asks every two."""
_TIMES = 10.0
"""What took long is good for that many times as long: however many people watch
however large a store, one look takes a tenth of a thread."""
_MOST = 50
"""Different looks that are kept."""


class Looks:
    """What was read lately. Any thread; who comes while one reads waits for that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks: dict[object, _Look] = {}

    def take(self, key: object, read: Callable[[], _T], least: float = _SHORTEST) -> _T:
        """Give what *read* gives, or what it gave in the last *least* seconds."""
        with self._lock:
            if len(self._looks) > _MOST:
                self._looks.clear()
            look = self._looks.setdefault(key, _Look())
        with look.lock:
            if monotonic() >= look.good_until:
                began = monotonic()
                look.value = read()
                ended = monotonic()
                look.good_until = ended + max(least, _TIMES * (ended - began))
            return cast("_T", look.value)

    def forget(self) -> None:
        """Have everything read anew: something was changed."""
        with self._lock:
            self._looks.clear()


class _Look:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: Any = None
        self.good_until = 0.0
