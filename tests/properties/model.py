"""What the contract says of one unit, in as few words as Python has."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spec:
    """A call of a program: its form, options, and what it does when it runs."""

    form: str = "sync"
    rule: str | None = None
    name: str | None = None
    grouped: bool = False
    script: tuple[tuple[Any, ...], ...] = ()


@dataclass
class Call:
    """A call and what has become of it."""

    number: int
    spec: Spec
    name: str | None = None
    state: str = "pending"
    reason: str | None = None

    def drop(self, reason: str) -> None:
        """End a call that has not started."""
        self.state, self.reason = "dropped", reason


class Raised(Exception):  # noqa: N818 - it is a step of a program, no error
    """A script came to its `raise`."""


@dataclass
class Model:
    """One unit: its calls in the order of their defers, and what was seen of them."""

    calls: list[Call] = field(default_factory=list)
    log: list[list[tuple[Any, ...]]] = field(default_factory=list)
    """What happened, in order; what stands in one list happened in any order."""
    ok: bool = True
    ended: bool = False

    def defer(self, spec: Spec) -> None:
        """Put a call at the end of the line (D1)."""
        call = Call(len(self.calls), spec)
        self.calls.append(call)
        if spec.name is not None:
            self._name(call, spec.name)

    def _name(self, call: Call, name: str) -> None:
        """Let the last registration of a name win (C3)."""
        for other in self.calls:
            if other is not call and other.name == name and other.state == "pending":
                other.drop("replaced")
        call.name = name

    def act(self, action: tuple[Any, ...]) -> None:
        """Do one step of a script, or of the unit's own code."""
        match action:
            case ("defer", spec):
                self.defer(spec)
            case ("raise",):
                raise Raised
            case ("forget", name):
                self.log.append([("forget", name, self._forget(name))])
            case ("cancel" | "name" as option, number, *rest):
                self._change(option, self.calls[number % len(self.calls)], *rest)

    def _forget(self, name: str) -> bool:
        for call in self.calls:
            if call.name == name and call.state == "pending":
                call.drop("cancelled")
                return True
        return False

    def _change(self, option: str, call: Call, *rest: str) -> None:
        """Set an option of a call that has not started, else refuse it (A2, C4)."""
        if call.state == "pending":
            if option == "cancel":
                call.drop("cancelled")
            else:
                self._name(call, *rest)
        elif call.state != "dropped":
            self.log.append([(option, call.number, "too late")])

    def late(self, spec: Spec) -> None:
        """Run what comes after the end by the same rules (A6)."""
        self.defer(spec)
        self._drain()

    def end(self, ok: bool) -> None:
        """End the unit and run its calls, nested ones included (A7)."""
        self.ok, self.ended = ok, True
        self._drain()

    def _drain(self) -> None:
        while batch := self._next():
            for call in batch:
                call.state = "running"
            if len(batch) == 1:
                self._run(batch[0])
            else:
                self._run_together(batch)

    def _next(self) -> list[Call]:
        """Take the first call that may run, and its neighbours if it has any (D1)."""
        batch: list[Call] = []
        for call in self.calls:
            if call.state != "pending":
                continue
            if batch and not call.spec.grouped:
                break
            if self._admits(call):
                batch.append(call)
                if not call.spec.grouped:
                    break
        return batch

    def _admits(self, call: Call) -> bool:
        """Judge a call by the unit's outcome, or by its own condition (C1)."""
        rule = call.spec.rule
        if rule in {"true", "false", "raises"}:
            self.log.append([("asked", call.number)])
        wanted = self.ok if rule is None else rule != "false"
        if not wanted:
            call.drop("outcome")
        return wanted

    def _run(self, call: Call) -> None:
        if call.spec.rule == "raises":  # the failure of a condition is its call's
            call.state = "failed"
            return
        self.log.append([("begins", call.number)])
        try:
            for action in call.spec.script:
                self.act(action)
        except Raised:
            call.state = "failed"
        else:
            self.log.append([("ends", call.number)])
            call.state = "done"

    def _run_together(self, batch: list[Call]) -> None:
        """Run a group: everything in it happens before what follows it."""
        before, self.log = self.log, []
        for call in batch:
            self._run(call)
        self.log = [*before, [entry for entries in self.log for entry in entries]]
