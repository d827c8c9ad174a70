import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import queue_jobs as jobs
from queue_stage import rows, until

import postlude
from postlude import DeferScope, QueueError, defer, failure_store, queue
from postlude.failures import retry
from postlude.queues import _sqlite_file

CHILD = """
import os, sys, postlude, queue_jobs as jobs
from postlude import DeferScope, QueueError, defer
postlude.configure(queue="sqlite:///" + sys.argv[1], queue_threads=0,
                   modules=("queue_jobs",))
import encodings.idna, base64, postlude._codec, postlude.queues.sqlite
postlude.settings()
with DeferScope():
    defer(jobs.note, "warm").retry(1)
jobs.seen.clear()
os.setuid(int(sys.argv[2]))
try:
    with DeferScope():
        defer(jobs.note, "one").durable()
except QueueError as error:
    print(type(error).__name__, jobs.seen)
"""
NOBODY = 65534


def refused() -> None:
    """A durable call is refused, and does not run."""
    with pytest.raises(QueueError, match="cannot be used now"), DeferScope():
        defer(jobs.note, "refused").durable()
    assert "refused" not in {name for name, _ in jobs.seen}


def accepted(name: str = "accepted") -> None:
    """A durable call is written and runs, without anybody's help."""
    with DeferScope():
        defer(jobs.note, name).durable()
    assert name in {name for name, _ in jobs.seen}


def test_locked_by_another_program(file: Path, monkeypatch) -> None:
    """A lock that outlasts the patience is an error, and its end needs no help (F2)."""
    monkeypatch.setattr(_sqlite_file, "BUSY", 0.05)
    accepted("before")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("begin immediate")
    refused()
    with DeferScope():
        call = defer(jobs.flaky, "flaky").retry(1, backoff=0.0)
    assert call.state == "failed"
    other.execute("rollback")
    other.close()
    accepted("after")
    (record,) = failure_store().list()
    assert retry(record).state == "done"
    assert [name for name, _ in jobs.seen].count("flaky") == 2


def test_lock_while_a_call_runs(worked: Path, monkeypatch) -> None:
    """What could not be told that it is done is told later, and does not run twice."""
    monkeypatch.setattr(_sqlite_file, "BUSY", 0.05)
    accepted("before")
    postlude.drain()
    with DeferScope():
        call = defer(jobs.wait, "long").timeout(60).durable()
        opener = threading.Thread(target=lock_and_open, args=(worked,))
        opener.start()
    opener.join()
    assert call.state == "done"
    until(lambda: rows(worked) == [])
    assert jobs.seen.count(("long", 1)) == 1
    assert len(jobs.seen) == 2


def lock_and_open(file: Path) -> None:
    """Hold the file while a call ends."""
    until(lambda: ("long", 1) in jobs.seen)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("begin immediate")
    jobs.gate.set()
    carrier = postlude._call.carrier
    until(lambda: carrier.line._troubled)
    other.execute("rollback")
    other.close()


def test_file_is_removed(worked: Path) -> None:
    """Nothing is written into a file that nobody would ever find again (F2)."""
    accepted("before")
    postlude.drain()
    # The file itself last: the worker makes a new one as soon as it misses it, and what
    # belongs to that must stay.
    for path in sorted(worked.parent.glob("queue.db*"), reverse=True):
        path.unlink()
    with DeferScope():
        queue(jobs.note, "after")
    until(lambda: ("after", 1) in jobs.seen)
    assert worked.exists()


def test_folder_is_removed_and_comes_back(worked: Path) -> None:
    """The engine's way back needs no help (F2)."""
    folder = worked.parent / "folder"
    folder.mkdir()
    postlude.configure(queue=f"sqlite:///{folder}/queue.db")
    postlude.settings()
    accepted("before")
    postlude.drain()
    shutil.rmtree(folder)
    refused()
    folder.mkdir()
    queue(jobs.note, "after")
    until(lambda: ("after", 1) in jobs.seen)


def test_corrupt_file(file: Path) -> None:
    """A file that is no database is an error, and one that is back is used again."""
    file.write_bytes(b"nothing of the kind" * 1000)
    refused()
    file.unlink()
    accepted()


def test_file_of_another_user(file: Path) -> None:
    """A file that may not be written is an error at the call (F2)."""
    accepted()
    postlude.drain()
    for path in (file, *file.parent.glob("queue.db-*")):
        path.chmod(0o644)
    result = _as_user(file, NOBODY)
    assert result == "QueueError []"


def test_disk_is_full(tmp_path: Path) -> None:
    """A full disk is an error at the call, and space needs no help (F2)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(
        ("/bin/mount", "-t", "tmpfs", "-o", "size=1m", "none", disk), check=True
    )
    try:
        postlude.configure(
            queue=f"sqlite:///{disk}/queue.db", queue_threads=0, modules=("queue_jobs",)
        )
        accepted("before")
        fill = disk / "fill"
        with pytest.raises(OSError, match="No space"):
            fill_up(fill)
        refused()
        fill.unlink()
        accepted("after")
        postlude.drain()
        assert rows(disk / "queue.db") == []
        postlude.configure(queue=None)
        postlude.settings()
    finally:
        subprocess.run(("/bin/umount", disk), check=True)


def fill_up(path: Path) -> None:
    """Write until there is no more space."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def _as_user(file: Path, user: int) -> str:
    for folder in (file.parent, *file.parent.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/tmp"):  # noqa: S108 - the system's
            folder.chmod(folder.stat().st_mode | 0o055)
    result = subprocess.run(
        (sys.executable, "-c", CHILD, str(file), str(user)),
        env={"PYTHONPATH": str(Path(jobs.__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or result.stderr


def test_overflow_is_handed_over(file: Path) -> None:
    """At the bound, what can be carried goes to the queue, the rest waits (D6)."""
    postlude.configure(overflow="hand_over", max_pending=1)
    postlude.settings()
    with DeferScope() as scope:
        pass
    scope = DeferScope()
    scope.runner = postlude._background.background
    token = postlude._scope.current.set(scope)
    try:
        carried = [defer(jobs.note, f"n{n}") for n in range(10)]
        stays = defer(lambda: None)
    finally:
        postlude._scope.current.reset(token)
    scope.end()
    until(lambda: stays.state == "done")
    until(lambda: {call.state for call in carried} == {"handed_over"})
    assert len(rows(file)) == 10
    assert jobs.seen == []


def test_overflow_with_the_queue_down(tmp_path: Path) -> None:
    """What could not be handed over at the bound runs here after all (D6)."""
    postlude.configure(
        queue=f"sqlite:///{tmp_path}/gone/queue.db",
        queue_threads=0,
        modules=("queue_jobs",),
        overflow="hand_over",
        max_pending=1,
    )
    scope = DeferScope()
    scope.runner = postlude._background.background
    token = postlude._scope.current.set(scope)
    try:
        calls = [defer(jobs.note, f"n{n}") for n in range(10)]
    finally:
        postlude._scope.current.reset(token)
    postlude.settings()
    scope.end()
    until(lambda: {call.state for call in calls} == {"done"})
    assert len(jobs.seen) == 10


PRELOADED = """
import os, sys, postlude, queue_jobs as jobs
from postlude import DeferScope, _process, defer
from queue_stage import until
postlude.configure(queue="sqlite:///" + sys.argv[1], modules=("queue_jobs",))

def accepted(name):
    with DeferScope():
        defer(jobs.note, name).durable()
    assert name in {seen for seen, _ in jobs.seen}

accepted("parent")
child = os.fork()
accepted("again")
if child == 0:
    _process.serve()
    postlude.queue(jobs.note, "queued")
    until(lambda: len(jobs.seen) == 3)
else:
    assert os.waitpid(child, 0)[1] == 0
postlude.drain()
print(sorted(seen for seen, _ in jobs.seen))
"""


def test_forked_child_has_its_own_file(file: Path) -> None:
    """A forked child opens the file anew, and its parent goes on (D8).

    As under a server that loads the application first and forks then. Not forked off
    from here: what the threads of this process lock just now, is locked there for good.
    """
    done = subprocess.run(
        [sys.executable, "-c", PRELOADED, str(file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "['again', 'parent', 'queued']",
        "['again', 'parent']",
    ], done.stderr
    assert rows(file) == []


PRELOADED_AND_SERVING = """
import gc, os, sys, threading, time, weakref, postlude, queue_jobs
from postlude import _process
postlude.configure(queue="sqlite:///" + sys.argv[1], modules=("queue_jobs",))
postlude.settings()
_process.serve()
postlude.queue(queue_jobs.note, "first")
while not queue_jobs.seen:  # what its worker loads first must be there before the fork
    time.sleep(0.01)
carrier = postlude._call.carrier

def connection():
    with carrier.queue._file.use() as engine:
        return weakref.ref(engine)

parents = connection()
with carrier.lock:
    child = os.fork()
    if child == 0:
        print("locked:", carrier.lock.locked())
if child == 0:
    _process.serve()
    names = [thread.name for thread in threading.enumerate()]
    print("workers:", names.count("postlude-worker"))
    print("own:", connection() is not parents)
    gc.collect()
    print("kept:", parents() is not None)
else:
    assert os.waitpid(child, 0)[1] == 0
    assert connection() is parents
"""


def test_forked_child_begins_anew(file: Path) -> None:
    """Nothing of a parent that works on the queue is its child's, nor closed (D8)."""
    done = subprocess.run(
        [sys.executable, "-c", PRELOADED_AND_SERVING, str(file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "locked: False",
        "workers: 1",
        "own: True",
        "kept: True",
    ], done.stderr


def test_engine_that_does_not_answer(file: Path) -> None:
    """What did not begin in time is refused, and is not done later either (F2)."""
    postlude.settings()
    line = postlude._call.carrier.line
    stuck = line.do(lambda: jobs.gate.wait(60))
    late = line.do(lambda: jobs.seen.append(("late", 1)))
    with pytest.raises(QueueError, match="did not answer in time"):
        late.wait(0.05)
    jobs.gate.set()
    stuck.wait()
    line.do(lambda: None).wait()
    assert jobs.seen == []


def test_lease_is_kept_under_load(worked: Path) -> None:
    """A line that always has something to do extends leases all the same (F2)."""
    postlude.configure(queue_lease=1.0, queue=f"sqlite:///{worked}-2")
    postlude.settings()
    queue(jobs.wait, "long")
    until(lambda: jobs.seen)
    line = postlude._call.carrier.line
    beats = []
    extend = line.queue.extend
    line.queue.extend = lambda *args: beats.append(1) or extend(*args)
    over = threading.Event()

    def more() -> None:
        if not over.is_set():
            line.do(more)  # so the line is never empty

    more()
    until(lambda: len(beats) >= 6)  # two leases
    over.set()
    jobs.gate.set()
    postlude.drain()
    assert jobs.seen == [("long", 1)]
