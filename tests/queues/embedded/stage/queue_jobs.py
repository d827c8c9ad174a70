"""The functions that the tests of the embedded queue hand over."""

import asyncio
import threading
from collections.abc import Awaitable
from dataclasses import dataclass

from postlude import current_call, defer

seen: list[tuple[str, int]] = []
"""Which argument was seen in which attempt."""
ids: dict[str, set[str]] = {}
gate = threading.Event()


def forget_all() -> None:
    """Begin anew."""
    seen.clear()
    ids.clear()
    gate.clear()


def note(name: str) -> None:
    """End at once."""
    call = current_call()
    seen.append((name, 0 if call is None else call.attempt))
    if call is not None:
        ids.setdefault(name, set()).add(call.id)


async def anote(name: str) -> None:
    """End at once, as a coroutine."""
    note(name)


def awaited(name: str) -> Awaitable[None]:
    """Give what is to be awaited."""
    return anote(name)


def boom(name: str) -> None:
    """Fail."""
    note(name)
    raise ValueError(name)


async def aboom(name: str) -> None:
    """Fail, as a coroutine."""
    boom(name)


async def aboom_late(name: str) -> None:
    """Fail after having waited."""
    await asyncio.sleep(0)
    boom(name)


def flaky(name: str, times: int = 1) -> None:
    """Fail in the first attempts."""
    note(name)
    call = current_call()
    if call is not None and call.attempt <= times:
        raise ConnectionError(name)


async def aflaky(name: str, times: int = 1) -> None:
    """Fail in the first attempts, as a coroutine."""
    flaky(name, times)


def wait(name: str) -> None:
    """Run until the test opens the gate."""
    note(name)
    gate.wait(60)


async def aforever(name: str) -> None:
    """Wait until it is cancelled."""
    note(name)
    await asyncio.Event().wait()


def nested(name: str) -> None:
    """Defer a durable call, and fail if the name says so."""
    note(name)
    defer(note, f"inner {name}").durable()
    if name.startswith("bad"):
        raise ValueError(name)


@dataclass
class Address:
    """What JSON does not know."""

    street: str


class Shop:
    """Has what cannot be found by a name."""

    def open(self, name: str) -> None:
        """Be a method."""
        note(name)
