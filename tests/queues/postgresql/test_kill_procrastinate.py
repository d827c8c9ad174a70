from pathlib import Path

from killing.cases import KillCases
from killing.engine import Engine
from places import place


def procrastinate(_folder: Path):
    """Give Procrastinate's tables, with leases that end soon."""
    return place("procrastinate")


class TestProcrastinate(KillCases):
    """Web processes are its workers, as of the embedded engine."""

    engine = Engine(
        "procrastinate", procrastinate, leases=True, recovery=4.0, embedded=True
    )
