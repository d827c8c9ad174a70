"""Which calls the queue was given: noted by the server process for the runner."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from postlude import DeferredCall
from postlude.instrumentation import CallRecord, install
from shop.addresses import addresses
from shop.journal import append, notes


class HandOvers:
    """Hears of the end of every call, and notes those that went on to the queue."""

    def around(self, call: DeferredCall) -> AbstractContextManager[object]:
        """Stand around nothing."""
        return nullcontext()

    def ended(self, record: CallRecord) -> None:
        """Note a call that was handed over, with the request it came from."""
        if record.state == "handed_over":
            note = {"id": record.id, "path": record.unit["path"]}
            append(_file(addresses().folder), note)


def note_handovers() -> None:
    """Note what this process hands to the queue from now on."""
    install(HandOvers())


def handed_over(folder: Path, way: str) -> set[str]:
    """Return the ids of the calls that the orders of one way gave to the queue.

    A call that fails on the queue, and goes back to it, is the same job.
    """
    wanted = f"/{way}/orders"
    return {note["id"] for note in notes(_file(folder)) if note["path"] == wanted}


def _file(folder: Path) -> Path:
    return folder / "handovers.jsonl"
