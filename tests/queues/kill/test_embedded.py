from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from killing.cases import KillCases
from killing.engine import Engine


@contextmanager
def place(folder: Path) -> Iterator[Mapping[str, str]]:
    """Give a new file, with leases that end soon."""
    yield {
        "POSTLUDE_QUEUE": f"sqlite:///{folder / 'queue.db'}",
        "POSTLUDE_QUEUE_LEASE": "2",
    }


class TestSQLite(KillCases):
    """The embedded engine: web processes are its workers."""

    engine = Engine("sqlite", place, leases=True, recovery=3.0, embedded=True)
