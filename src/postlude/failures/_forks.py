"""Stores across a fork: nothing of theirs is in use while it happens (D8).

A child has one thread. What another one had locked stays locked there for ever; and a
SQLite file that was open is not to be touched again, https://sqlite.org/howtocorrupt.html
section 2.6.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forking(Protocol):
    """A store that has something to do about forks."""

    def before_fork(self) -> None:
        """Take the lock and let go of what a child must not have."""
        ...

    def after_fork(self, *, in_child: bool) -> None:
        """Give the lock back; in a child make a new one."""
        ...


_stores: WeakSet[Forking] = WeakSet()
_taken: list[Forking] = []


def take_part(store: Forking) -> None:
    """Tell *store* of forks from now on, as long as it is used."""
    _stores.add(store)


def _before() -> None:
    for store in list(_stores):
        store.before_fork()
        _taken.append(store)


def _after(*, in_child: bool) -> None:
    while _taken:
        _taken.pop().after_fork(in_child=in_child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before,
        after_in_parent=lambda: _after(in_child=False),
        after_in_child=lambda: _after(in_child=True),
    )
