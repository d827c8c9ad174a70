import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import postlude
from postlude import _defer, _process, _reporting, _runner, _settings, wsgi
from postlude.queues import _working

# As in tests/core: the functions that jobs name stand in a module beside this file.
sys.path.insert(0, str(Path(__file__).parent / "stage"))

import queue_jobs
from queue_stage import PATIENCE

LEASE = 3.0


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process as if new, and end its queue."""
    monkeypatch.setattr(wsgi, "_said", True)
    monkeypatch.setattr(_reporting, "_store", None)
    monkeypatch.setattr(_defer, "_warned", set())
    monkeypatch.setattr(_process, "serving", False)
    monkeypatch.setattr(_working, "_IDLE", 0.01)  # what is written aside wakes nobody
    _settings.reset()
    queue_jobs.forget_all()
    yield
    queue_jobs.gate.set()
    postlude.drain(PATIENCE)
    assert _runner.running == {}
    postlude.configure(queue=None)
    postlude.settings()
    _settings.reset()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The queue's file, configured, with nobody working on it."""
    path = tmp_path / "queue.db"
    postlude.configure(
        queue=f"sqlite:///{path}",
        queue_lease=LEASE,
        queue_threads=0,
        modules=("queue_jobs",),
    )
    return path


@pytest.fixture
def worked(file: Path) -> Path:
    """The same, with workers in this process."""
    postlude.configure(queue_threads=2)
    postlude.settings()
    _process.serve()
    return file
