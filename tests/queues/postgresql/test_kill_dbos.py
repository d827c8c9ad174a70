from pathlib import Path

from killing.cases import KillCases
from killing.engine import Engine
from places import place


def dbos(_folder: Path):
    """Give DBOS's tables."""
    return place("dbos")


class TestDBOS(KillCases):
    """Workers are `postlude work`; others look for the executors that died."""

    engine = Engine("dbos", dbos, leases=False, recovery=15.0)
