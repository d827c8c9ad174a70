"""Something that the engine is asked, and its answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from postlude._log import say
from postlude.exceptions import QueueError

WAIT = 30.0
"""Seconds after which an engine that does not answer has failed."""


class Ticket:
    """Something that the line is asked to do, and what came of it."""

    pause = 0.0
    """Seconds until the run that was asked for, if it is another run of a call."""

    def __init__(self, work: Callable[[], Any]) -> None:
        """Make a ticket; *work* gives the result, or raises."""
        self._work = [work]
        """Whoever takes it out answers, and nobody else."""
        self.result: Any = None
        self.error: BaseException | None = None
        self._over = threading.Event()
        self._tellers: list[Callable[[], object]] = []

    @classmethod
    def answered(cls, result: Any = None) -> Ticket:
        """Give a ticket whose answer is known."""
        ticket = cls(lambda: result)
        ticket.answer(result)
        return ticket

    @property
    def is_over(self) -> bool:
        """Whether there is an answer."""
        return self._over.is_set()

    def do(self) -> None:
        """Do what was asked for, unless there is an answer, and wake whoever waits."""
        try:
            work = self._work.pop()
        except IndexError:
            return
        try:
            self.result = work()
        except BaseException as exc:  # noqa: BLE001 - whoever waits for it gets it
            self.error = exc.with_traceback(None)  # its frames refer to this ticket
        self._end()

    def answer(self, result: Any = None, error: BaseException | None = None) -> None:
        """Answer without doing it, if it has not begun."""
        if self._take():
            self.result, self.error = result, error
            self._end()

    def _take(self) -> bool:
        try:
            return self._work.pop() is not None
        except IndexError:
            return False

    def _end(self) -> None:
        self._over.set()
        self._tell()

    def on_end(self, tell: Callable[[], object]) -> None:
        """Call *tell* (quick, any thread) at the end; at once if that was before."""
        self._tellers.append(tell)
        if self._over.is_set():
            self._tell()

    def _tell(self) -> None:
        while self._tellers:
            try:
                tell = self._tellers.pop()
            except IndexError:  # another thread was quicker
                return
            try:
                tell()
            except BaseException as exc:  # noqa: BLE001 - the line serves others, too
                say(logging.ERROR, "Postlude failed to settle a call", exc_info=exc)

    def get(self) -> Any:
        """Give the result, without waiting for it.

        Raises:
            QueueError: the engine failed, or has not answered.
        """
        if not self._over.is_set():
            raise QueueError(NO_ANSWER)
        error = self.error
        if error is None:
            return self.result
        try:
            if isinstance(error, QueueError):
                raise QueueError(*error.args) from error.__cause__
            raise QueueError(
                f"The queue failed: {type(error).__name__}: {error}. Usually its "
                "server or its file cannot be reached now. Look at it; what could not "
                "be handed over was refused or recorded."
            ) from error
        finally:
            del error  # the traceback keeps this frame

    def wait(self, seconds: float = WAIT) -> Any:
        """Wait for the result, blocking.

        What has not begun by then is not done any more.

        Raises:
            QueueError: the engine failed, or did not answer.
        """
        if not self._over.wait(seconds):
            self.answer(error=QueueError(NO_ANSWER))
        return self.get()


NO_ANSWER = (
    "The queue did not answer in time. Usually its server hangs or its file is locked. "
    "Look at it; nothing was acknowledged."
)
