"""What the tests of the embedded queue look at."""

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import queue_jobs

PATIENCE = 30.0


def rows(file: Path) -> list[tuple[str, str]]:
    """Give the state and the function's argument of each job in the file."""
    if not file.exists():
        return []
    database = sqlite3.connect(file)
    try:
        found = database.execute(
            "select state, params from t_postlude order by enqueue_at, task_id"
        ).fetchall()
    except sqlite3.OperationalError:  # the file is made, its tables are not
        return []
    finally:
        database.close()
    return [
        (state, json.loads(json.loads(json.loads(params))["payload"])[0][0])
        for state, params in found
    ]


def until(seen: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + PATIENCE
    while not seen():
        assert time.monotonic() < deadline, queue_jobs.seen
        time.sleep(0.005)
