"""What became of one call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from postlude import _names

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope


class CallRecord(NamedTuple):
    """Everything that is known of a call at its end (E4). Times are Unix seconds."""

    id: str
    name: str
    function: str
    """`module:qualname`."""
    site: str
    """The place that deferred the call."""
    unit: dict[str, object]
    """Method, route, path, status and request id, as far as the adapter knows."""
    state: str
    reason: str | None
    """Why a call was dropped."""
    exception: BaseException | None
    delivered: bool
    """False if the client was seen to be gone."""
    committed: bool | None
    """What became of the transactions around the call; None if there were none."""
    head_sent: float | None
    """When the head of the response was handed over; None in blocks."""
    last_byte: float | None
    """When the unit's work was over: the response's last byte, or a block's end."""
    started: float | None
    """None if the call never began."""
    ended: float
    is_async: bool
    """Whether it ran on an event loop; otherwise in a thread."""
    began: float | None
    """When the unit began; only for the first call of a unit that ends."""
    attempt: int = 1

    @property
    def first_of_unit(self) -> float | None:
        """Seconds that the unit itself took, for the first of its calls that ends."""
        if self.began is None or self.last_byte is None:
            return None
        return max(0.0, self.last_byte - self.began)

    @property
    def start_delay(self) -> float | None:
        """Seconds from the end of the unit's work to the begin of the call."""
        if self.started is None or self.last_byte is None:
            return None
        return max(0.0, self.started - self.last_byte)

    @property
    def duration(self) -> float | None:
        """Seconds that the call ran."""
        return None if self.started is None else max(0.0, self.ended - self.started)

    @classmethod
    def of(cls, scope: DeferScope | None, call: DeferredCall) -> CallRecord:
        """Make the record of a call that ends now."""
        now = time.time()
        passed = now - time.monotonic()
        outcome = call.outcome
        unit: dict[str, object] = {}
        head_sent = last_byte = began = None
        if scope is not None:
            unit = scope.describe()
            head_sent, last_byte = scope.head_sent, scope.last_byte
            began = scope.count()
        started = call.started
        # By position: with names it takes three times as long, and every call is told.
        return cls(
            call.id,
            call.name,
            _names.qualified(call.fn),
            call.site,
            unit,
            call.state,
            call.reason,
            call.exception,
            outcome is None or outcome.delivered,
            None if outcome is None else outcome.committed,
            None if head_sent is None else head_sent + passed,
            None if last_byte is None else last_byte + passed,
            None if started is None else started + passed,
            now,
            call.is_async,
            None if began is None else began + passed,
            call.attempt,
        )
