"""One test's view of a server: its own token on every request, event and gate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from harness.observer import Event, Gate, Gates, Journal


@dataclass(frozen=True, slots=True)
class Visit:
    """Names the calls a request asks for, and finds what became of them."""

    token: str
    journal: Journal
    gates: Gates

    def target(self, route: str, *calls: str, **more: str | Sequence[str]) -> str:
        """Return the request target that defers `calls`, each `name:kind:option`."""
        query = {"token": self.token, "defer": calls, **more}
        return f"/{route}?{urlencode(query, doseq=True, safe=':')}"

    def begin(self, name: str) -> Event:
        """Wait for the begin of a call."""
        return self.event("begin", name)

    def end(self, name: str) -> Event:
        """Wait for the end of a call."""
        return self.event("end", name)

    def outcome(self, name: str) -> dict[str, Any]:
        """Wait for the end of a call and return the outcome that it saw."""
        self.end(name)
        return self.begin(name).detail

    def event(self, what: str, name: str = "") -> Event:
        """Wait for an event of this visit."""
        return self.journal.wait(
            f"{what} of {name}",
            lambda event: (event.what, event.name) == (what, name),
            self.token,
        )

    def begun(self) -> list[str]:
        """Return the names of the calls that have begun so far, in their order."""
        return [event.name for event in self._mine("begin")]

    def ended(self) -> list[str]:
        """Return the names of the calls that have ended so far, in their order."""
        return [event.name for event in self._mine("end")]

    def gate(self, name: str) -> Gate:
        """Wait until somebody waits at the gate of this name."""
        return self.gates.wait(self.token, name)

    def _mine(self, what: str) -> list[Event]:
        return self.journal.all(lambda event: event.what == what, self.token)
