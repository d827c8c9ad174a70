from pathlib import Path

from killing.cases import KillCases
from killing.engine import Engine
from places import place


def absurd(_folder: Path):
    """Give Absurd's tables, with leases that end soon."""
    return place("absurd")


class TestAbsurd(KillCases):
    """Web processes are its workers, as of the embedded engine."""

    engine = Engine("absurd", absurd, leases=True, recovery=3.0, embedded=True)
