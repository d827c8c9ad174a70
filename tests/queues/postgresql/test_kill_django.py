from pathlib import Path

from killing.cases import KillCases
from killing.engine import Engine
from places import site_of_tasks


def tasks(_folder: Path):
    """Give a Django project with tasks in rows, and heartbeats that end soon."""
    return site_of_tasks()


class TestDjangoTasks(KillCases):
    """Workers are `postlude work`; it runs those of django-tasks-db."""

    engine = Engine("django", tasks, leases=False, recovery=4.0, graceful=False)
