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

        def unix(moment: float | None) -> float | None:
            return None if moment is None else moment + passed

        return cls(
            id=call.id,
            name=call.name,
            function=_names.qualified(call.fn),
            site=call.site,
            unit={} if scope is None else scope.describe(),
            state=call.state,
            reason=call.reason,
            exception=call.exception,
            delivered=outcome is None or outcome.delivered,
            committed=None if outcome is None else outcome.committed,
            head_sent=None if scope is None else unix(scope.head_sent),
            last_byte=None if scope is None else unix(scope.last_byte),
            started=unix(call.started),
            ended=now,
            is_async=call.is_async,
            began=None if scope is None else unix(scope.count()),
            attempt=call.attempt,
        )
