"""The instruments of this process, and how they are told. None of them hurts a call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from postlude._log import say
from postlude.instrumentation._record import CallRecord

if TYPE_CHECKING:
    from types import TracebackType

    from postlude._call import DeferredCall
    from postlude._scope import DeferScope


class Instrument(Protocol):
    """Watches calls. What it raises is logged, once per instrument, and goes no way."""

    def around(self, call: DeferredCall, /) -> AbstractContextManager[object]:
        """Give what stands around a call that runs.

        It is entered in the call's own context, on the thread or loop that runs it,
        and left with the exception that the call raised, if any.
        """
        ...

    def ended(self, record: CallRecord, /) -> None:
        """See a call's end, of whatever kind. Any thread or loop; must be quick."""
        ...


instruments: tuple[Instrument, ...] = ()
load: Callable[[], tuple[int, int]]  # installed by postlude._process
"""How many calls are pending in units that have ended, and how many run."""
_complained: list[Instrument] = []


def install(instrument: Instrument) -> None:
    """Have *instrument* watch every call of this process from now on."""
    global instruments
    if instrument not in instruments:
        instruments = (*instruments, instrument)


def uninstall(instrument: Instrument) -> None:
    """Take an instrument out again."""
    global instruments
    instruments = tuple(other for other in instruments if other is not instrument)


def tell(scope: DeferScope | None, call: DeferredCall) -> None:
    """Tell all instruments that a call has ended."""
    record: CallRecord | None = None
    for instrument in instruments:
        try:
            record = record or CallRecord.of(scope, call)
            instrument.ended(record)
        except BaseException as exc:  # noqa: BLE001 - an instrument hurts nobody (E3)
            _complain(instrument, exc)


class Around:
    """All instruments around one call; whatever they do, the call is what counts."""

    __slots__ = ("_call", "_entered")

    def __init__(self, call: DeferredCall) -> None:
        self._call = call
        self._entered: list[tuple[Instrument, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        for instrument in instruments:
            try:
                manager = instrument.around(self._call)
                manager.__enter__()
            except BaseException as exc:  # noqa: BLE001 - an instrument hurts nobody (E3)
                _complain(instrument, exc)
            else:
                self._entered.append((instrument, manager))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._entered:
            instrument, manager = self._entered.pop()
            try:
                manager.__exit__(kind, exc, traceback)
            except BaseException as error:  # noqa: BLE001 - an instrument hurts nobody (E3)
                if error is not exc:
                    _complain(instrument, error)


def _complain(instrument: Instrument, exc: BaseException) -> None:
    if any(other is instrument for other in _complained):
        return
    _complained.append(instrument)
    text = "the instrument %r failed; this is said once, and calls go on without it"
    say(logging.ERROR, text, instrument, exc_info=exc)
