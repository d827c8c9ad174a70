"""What the server process notes for the runner beside the shop's own journal."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from shop.addresses import addresses
from shop.journal import append, notes


def with_gates() -> bool:
    """Whether deferred calls are to wait for transactions in this process."""
    return os.environ["SHOP_GATES"] == "1"


@dataclass(frozen=True, slots=True)
class Drop:
    """A call that was dropped, as its log record tells of it."""

    call: str
    reason: str
    database: str | None
    """The one whose transaction was rolled back."""
    place: str
    """Where it was deferred."""


class Drops(logging.Handler):
    """Keeps the dropped calls that Postlude's logger tells of."""

    def emit(self, record: logging.LogRecord) -> None:
        """Note a dropped call; its record carries it."""
        call = getattr(record, "postlude_call", None)
        if call is not None and call.state == "dropped":
            drop = Drop(call.name, call.reason, call.rolled_back, call.site)
            append(drops_file(addresses().folder), asdict(drop))


def note_drops() -> None:
    """Keep what is dropped in this process; Postlude logs it at INFO."""
    logger = logging.getLogger("postlude")
    logger.setLevel(logging.INFO)
    logger.addHandler(Drops())


def drops_file(folder: Path) -> Path:
    """Return the file of dropped calls."""
    return folder / "drops.jsonl"


def read_drops(folder: Path) -> list[Drop]:
    """Return all complete entries so far."""
    return [Drop(**note) for note in notes(drops_file(folder))]
