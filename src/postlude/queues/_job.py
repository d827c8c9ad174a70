"""What is handed to a queue: one call, as text."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from postlude.exceptions import ArgumentError

MOST = 256 * 1024
"""Characters of a message. Brokers take more, and slow down by it; whoever needs to
pass a file along passes its place."""
_VERSION = 1
_LONGEST_PAUSE = 3600.0
_JITTER = 0.25


class Job(NamedTuple):
    """One call on its way to another process, or to another attempt."""

    id: str
    """That of the call, the same in every attempt: the idempotency key of its work."""
    name: str
    function: str
    """`module:qualname`."""
    payload: str
    """The arguments as `postlude._codec` writes them."""
    site: str = "unknown"
    """The place that deferred it."""
    unit: Mapping[str, object] = {}
    """Method, route, status and request id of the request that it came from."""
    retries: int = 0
    """Further runs after the first, if it fails."""
    backoff: float | tuple[float, ...] = 0.0
    """Seconds before the first of them, doubled each time; or seconds before each."""
    attempt: int = 0
    """How many runs there were before this was written."""
    timeout: float | None = None
    """Seconds that a run may take."""
    key: str | None = None
    """A second job of the same key is not taken."""
    delay: float = 0.0
    """Seconds from now before which nobody begins it."""

    @property
    def runs_left(self) -> int:
        """How many runs there may be from here on, one at least."""
        return max(1, self.retries + 1 - self.attempt)

    def pause(self, attempt: int) -> float | None:
        """Give the seconds between run *attempt*, which failed, and the next.

        None: it was the last. Doubling pauses vary by a quarter, so that what failed
        together does not come back together.
        """
        if attempt > self.retries:
            return None
        if isinstance(self.backoff, tuple):
            return self.backoff[min(attempt, len(self.backoff)) - 1]
        pause = min(self.backoff * 2.0 ** (attempt - 1), _LONGEST_PAUSE)
        return pause * random.uniform(1.0, 1.0 + _JITTER)  # noqa: S311 - no secret

    def text(self) -> str:
        """Give the job as JSON, which every engine carries."""
        fields = self._asdict() | {"v": _VERSION, "unit": dict(self.unit)}
        return json.dumps(fields, separators=(",", ":"), default=str)

    @classmethod
    def read(cls, text: object) -> Job:
        """Give back what `text()` gave.

        Raises:
            ArgumentError: it is nothing of the kind; nothing of it was used.
        """
        try:
            return cls._read(text)
        except (ValueError, TypeError, KeyError, RecursionError) as exc:
            raise ArgumentError(
                f"A message is no job of Postlude ({type(exc).__name__}: {exc}). "
                "Usually another program or a newer version wrote it. It was not run; "
                "look at who writes to this queue."
            ) from None

    @classmethod
    def _read(cls, text: object) -> Job:
        if not isinstance(text, (str, bytes)):
            raise TypeError(f"it is of type {type(text).__qualname__}")
        if len(text) > 2 * MOST:
            raise ValueError(f"it has {len(text):,} characters")
        fields: Any = json.loads(text)
        if not isinstance(fields, dict):
            raise TypeError("it is no JSON object")
        fields = cast("dict[str, Any]", fields)
        if fields.pop("v") != _VERSION:
            raise ValueError("it is of another version")
        if isinstance(fields.get("backoff"), list):
            fields["backoff"] = tuple(float(each) for each in fields["backoff"])
        job = cls(**fields)
        for name, kinds in _KINDS.items():
            value = getattr(job, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise TypeError(f"{name} is of type {type(value).__qualname__}")
        job._check_numbers()
        return job

    def _check_numbers(self) -> None:
        pauses = self.backoff if isinstance(self.backoff, tuple) else (self.backoff,)
        numbers = (self.retries, self.attempt, self.delay, *pauses)
        if not pauses or not all(0 <= number < float("inf") for number in numbers):
            raise ValueError("one of its numbers is impossible")
        if self.timeout is not None and not 0 < self.timeout < float("inf"):
            raise ValueError(f"timeout is {self.timeout!r}")


_NUMBER = (int, float)
_KINDS: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "name": (str,),
    "function": (str,),
    "payload": (str,),
    "site": (str,),
    "unit": (dict,),
    "retries": (int,),
    "backoff": (*_NUMBER, tuple),
    "attempt": (int,),
    "timeout": (*_NUMBER, type(None)),
    "key": (str, type(None)),
    "delay": _NUMBER,
}
