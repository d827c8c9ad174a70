"""Waits on an event loop: for tickets, and until units are put down."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from postlude import _process
from postlude._scope import held
from postlude._settings import in_force

if TYPE_CHECKING:
    from collections.abc import Callable

    from postlude._scope import DeferScope
    from postlude._types import Ticket

_MOMENT = 0.1
"""Seconds in which tasks that were woken by a thread have their turn."""
_COMMIT_GRACE = 1.0
"""Seconds that a transaction has to end after its loop has begun to."""


async def stay(scope: DeferScope) -> None:
    """Wait until *scope* is put down, although the task is cancelled (B5).

    For a request's own task where nobody else would wait. Not for calls that wait for a
    transaction: whoever is to commit it may wait for this very task. A cancellation is
    raised afterwards, or when the calls have had the shutdown's grace.
    """
    cancelled: asyncio.CancelledError | None = None
    deadline = 0.0
    while scope in held:
        try:
            await wait(scope)
        except asyncio.CancelledError as exc:
            deadline = deadline or monotonic() + in_force().grace
            cancelled = exc
            if monotonic() > deadline:
                break
    if cancelled is not None:
        raise cancelled


async def wait(scope: DeferScope) -> None:
    """Wait until no call of *scope* is left. Cancelling this cancels no call."""
    done = asyncio.get_running_loop().create_future()
    scope.on_finish(_resolving(done))
    await done


async def answer(ticket: Ticket) -> None:
    """Wait for a ticket's answer. A cancellation is raised when it has come."""
    came = asyncio.get_running_loop().create_future()
    ticket.on_end(_resolving(came))
    cancelled: asyncio.CancelledError | None = None
    while not came.done():
        try:
            await asyncio.shield(came)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled


def _resolving(future: asyncio.Future[None]) -> Callable[[], None]:
    """Give what ends the waiting for a future, from any thread."""
    loop = future.get_loop()

    def resolve() -> None:
        if not future.done():  # it may have been cancelled
            future.set_result(None)

    def tell() -> None:
        try:
            loop.call_soon_threadsafe(resolve)
        except RuntimeError:  # the loop is closed, and with it whoever waited
            pass

    return tell


class Keepers:
    """Hold a loop that ends without a word: `asyncio.run` waits for its tasks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def keep(self, scope: DeferScope) -> None:
        """Have a task wait for the end of *scope*, for a while even if cancelled."""
        keeper = self._loop.create_task(_keep(scope))
        self._tasks.add(keeper)
        keeper.add_done_callback(self._tasks.discard)

    async def gone(self) -> None:
        """Wait, a moment at most, until whoever waits for a unit knows of its end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_MOMENT)


async def _keep(scope: DeferScope) -> None:
    deadline: float | None = None
    while scope.busy:
        left = None if deadline is None else max(0.0, deadline - monotonic())
        try:
            await asyncio.wait_for(_wait_a_bit(scope), left)
        except TimeoutError:
            _process.lose([scope], "its event loop was closed")
            return
        except asyncio.CancelledError:  # the loop is being shut down
            grace = in_force().grace
            if scope not in held:  # and with it, most likely, whoever would commit
                grace = min(grace, _COMMIT_GRACE)
            deadline = deadline or monotonic() + grace


async def _wait_a_bit(scope: DeferScope) -> None:
    """Wait until a unit is put down, or a moment for a transaction's end."""
    if scope in held:
        await wait(scope)
    else:
        await asyncio.sleep(0.02)
