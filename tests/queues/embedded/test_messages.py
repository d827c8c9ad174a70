import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import queue_jobs as jobs
from queue_stage import rows, until

import postlude
from postlude import DeferScope, QueueOptionError, defer, failure_store, queue
from postlude.queues import Job, Lease, open_queue
from postlude.testing import capture, inline

GOOD = Job(id="x", name="n", function="queue_jobs:note", payload='[["one"],{}]')


def forge(file: Path, text: str) -> None:
    """Put a text of somebody else's where the engine has its jobs."""
    postlude.settings()
    engine = postlude._call.carrier.queue
    (token,) = engine.put([GOOD], hold=3600.0)
    task = token.partition("/")[0]
    database = sqlite3.connect(file)
    with database:
        database.execute(
            "update t_postlude set params = ? where task_id = ?", (text, task)
        )
        database.execute(
            "update r_postlude set available_at = '2020' where task_id = ?", (task,)
        )
    database.close()


def message(**fields: object) -> str:
    """Give a job's row with some fields changed."""
    return json.dumps(json.dumps(json.loads(GOOD.text()) | fields))


FORGED = {
    "unknown function": message(function="queue_jobs:nothing"),
    "unknown module": message(function="no_such_module:f"),
    "outside": message(function="os:system", payload='[["touch /tmp/x"],{}]'),
    "imported": message(function="queue_jobs:threading.Thread"),
    "from elsewhere": message(function="queue_jobs:current_call", payload="[[],{}]"),
    "builtin": message(function="builtins:exec", payload='[["1"],{}]'),
    "dunder": message(function="queue_jobs:note.__globals__"),
    "too many arguments": message(payload='[["a","b"],{}]'),
    "wrong names": message(payload='[[],{"nome":"a"}]'),
    "payload is no JSON": message(payload="pickle"),
    "payload names a class": message(
        payload='[[{"$":"dataclass","type":"os:stat_result","v":{}}],{}]'
    ),
    "not JSON": json.dumps("{nothing"),
    "no object": json.dumps("[]"),
    "not even a text": json.dumps({"function": "os:system"}),
    "not JSON in the row": "{corrupt",
    "another version": message(v=2),
    "a field more": message(more=1),
    "a number for a text": message(name=7),
    "no end of retries": message(retries=-1),
    "no pauses": message(backoff=[]),
    "a pause for ever": message(backoff=float("inf")),
    "a delay for ever": message(delay=float("inf")),
    "no time at all": message(timeout=float("nan")),
    # made when they are needed, not in each process that has the list
    "50 MB": lambda: json.dumps("x" * 50_000_000),
    "50 MB of arguments": lambda: message(payload=json.dumps([["x" * 50_000_000], {}])),
    "deep": json.dumps("[" * 100_000),
}


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED)
def test_forged_messages(worked: Path, text) -> None:
    """What is no job, or may not be run, is refused and recorded, never run (F3)."""
    forge(worked, text() if callable(text) else text)
    until(lambda: list(failure_store().list()))
    until(lambda: len(list(postlude._call.carrier.queue.failed())) == 1)
    (record,) = failure_store().list()
    assert "ArgumentError" in (record.exception or "")
    queue(jobs.note, "after")
    until(lambda: jobs.seen == [("after", 1)])


def test_edited_row_bars_nobody(worked: Path) -> None:
    """A row with a time or a JSON of somebody's own is refused; others go on (F3)."""
    forge(worked, "{corrupt")
    database = sqlite3.connect(worked)
    with database:
        database.execute("update t_postlude set headers = '{', retry_strategy = '{'")
    database.close()
    queue(jobs.note, "after")
    until(lambda: jobs.seen == [("after", 1)])
    until(lambda: list(failure_store().list()))


def test_refused_job_can_be_looked_at_and_forgotten(worked: Path) -> None:
    """Failed jobs that are no jobs are listed and can be taken out (E2)."""
    forge(worked, json.dumps("{nothing"))
    engine = postlude._call.carrier.queue
    until(lambda: list(engine.failed()))
    (record,) = engine.failed()
    assert engine.retry([record.id]) == 1
    until(lambda: [r.attempt for r in engine.failed()] == [2])
    assert engine.forget([record.id]) == 1
    assert list(engine.failed()) == []


def test_module_that_raises_when_it_is_imported(worked: Path, tmp_path) -> None:
    """A job whose module cannot be imported is recorded (E2)."""
    (tmp_path / "broken_jobs.py").write_text("raise SystemExit('no')\n")
    sys.path.insert(0, str(tmp_path))
    postlude.configure(modules=("queue_jobs", "broken_jobs"))
    try:
        forge(worked, message(function="broken_jobs:f"))
        until(lambda: list(failure_store().list()))
        (record,) = failure_store().list()
        assert "cannot be had: no" in (record.exception or "")
    finally:
        sys.path.remove(str(tmp_path))
    queue(jobs.note, "after")
    until(lambda: jobs.seen == [("after", 1)])


def test_key(worked: Path) -> None:
    """While a job of a key is known, another of it is not taken (F1)."""
    queue(jobs.wait, "one", key="k")
    until(lambda: jobs.seen)
    queue(jobs.note, "two", key="k")
    jobs.gate.set()
    until(lambda: rows(worked) == [("completed", "one")])
    queue(jobs.note, "three", key="k")
    queue(jobs.note, "four", key="other")
    until(lambda: ("four", 1) in jobs.seen)
    assert [name for name, _ in jobs.seen] == ["one", "four"]


def test_key_of_a_dead_process(file: Path) -> None:
    """A job that was on hold when its process died has its key all the same (F1)."""
    postlude.settings()
    engine = postlude._call.carrier.queue
    first, second, third = (
        Job(name, name, "queue_jobs:note", f'[["{name}"], {{}}]', key="k")
        for name in ("one", "two", "three")
    )
    assert all(engine.put([job], hold=0.01)[0] for job in (first, second))
    leases: list[Lease] = []
    until(lambda: leases.extend(engine.claim(2, 30)) or len(rows(file)) == 1)
    assert [lease.job.id for lease in leases] == ["one"]
    assert engine.put([third]) == [""]
    engine.finish([leases[0].token])
    assert engine.put([third]) == [""]


def test_an_option_that_comes_too_late_for_a_job_is_refused(file: Path) -> None:
    """A job that has left cannot be told of a time-out: it is said, and how (F4)."""
    call = queue(jobs.note, "one")
    with pytest.raises(QueueOptionError, match=r"with DeferScope\(\): queue\(fn\)"):
        call.timeout(5)
    with DeferScope():
        queue(jobs.note, "two").timeout(5)
    assert [job.timeout for _, job in open_queue(f"sqlite:///{file}").waiting()] == [
        None,
        5,
    ]


def test_key_of_a_failed_unit_bars_nobody(worked: Path) -> None:
    """A job that is taken back leaves its key to the next one (C1)."""

    def failing() -> None:
        with DeferScope():
            queue(jobs.note, "one", key="k").always().when(lambda o: o.ok)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    postlude.drain()
    with DeferScope():
        queue(jobs.note, "two", key="k")
    until(lambda: jobs.seen == [("two", 1)])


def test_queue_in_a_unit_and_outside(worked: Path) -> None:
    """`queue()` is begun by a worker, after the unit, if the unit succeeded (F1)."""
    with DeferScope():
        call = queue(jobs.note, "in")
        assert rows(worked) == []
    assert call.state == "handed_over"

    def failing() -> None:
        with DeferScope():
            queue(jobs.note, "failed")
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    outside = queue(jobs.note, "out")
    assert outside.state == "handed_over"
    until(lambda: {name for name, _ in jobs.seen} == {"in", "out"})


def test_delay(file: Path) -> None:
    """Nobody begins a job before its delay is over (F1)."""
    queue(jobs.note, "later", delay=3600.0)
    queue(jobs.note, "now")
    postlude.configure(queue_threads=1)
    postlude.settings()
    postlude._process.serve()
    until(lambda: jobs.seen == [("now", 1)])
    ((_, job),) = postlude._call.carrier.queue.waiting()
    assert 3500 < job.delay <= 3600


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"delay": -1}, ValueError, "seconds"),
        ({"delay": "1"}, ValueError, "seconds"),
        ({"key": ""}, TypeError, "non-empty"),
        ({"key": 7}, TypeError, "non-empty"),
        ({"retries": -1}, ValueError, "whole number"),
        ({"backoff": []}, ValueError, "seconds"),
    ],
)
def test_impossible_options(file: Path, options, error, text) -> None:
    """What `queue()` cannot use is refused where it stands (A4)."""
    with DeferScope() as scope:
        with pytest.raises(error, match=text):
            queue(jobs.note, "one", **options)
        assert scope.pending == 0
    assert rows(file) == []


def test_testing_kit_writes_nothing(file: Path) -> None:
    """`capture()` collects backed calls and runs them here; nothing is written (G2)."""
    with capture() as captured:
        with DeferScope():
            defer(jobs.note, "durable").durable()
            defer(jobs.note, "retry").retry(3)
            queue(jobs.note, "queue")
        queue(jobs.note, "outside")
        captured.assert_deferred(jobs.note, times=4)
        captured.run()
    assert [name for name, _ in jobs.seen] == ["durable", "retry", "queue", "outside"]
    assert not file.exists()


def test_inline_runs_at_once(file: Path) -> None:
    """`inline()` runs backed calls where they stand, and lets errors through (G2)."""
    with inline(), DeferScope():
        defer(jobs.note, "durable").durable()
        defer(jobs.note, "retry").retry(3)
        queue(jobs.note, "queue")
        with pytest.raises(ValueError, match="bad"):
            queue(jobs.boom, "bad")
        assert [n for n, _ in jobs.seen] == ["durable", "retry", "queue", "bad"]
    queue_again = [n for n, _ in jobs.seen]
    assert len(queue_again) == 4
    assert not file.exists()


def test_backed_calls_leave_no_cycle(file: Path) -> None:
    """A backed call is freed when it has ended, without the collector (D6)."""
    code = """
import gc, weakref, postlude, queue_jobs as jobs, sys
from postlude import DeferScope, defer
postlude.configure(queue="sqlite:///" + sys.argv[1], queue_threads=0,
                   modules=("queue_jobs",))
import logging; logging.disable()
gc.disable()
found = {}
for option in ("retry", "durable"):
    for fn in (jobs.note, jobs.boom, jobs.anote, jobs.aboom):
        with DeferScope():
            call = defer(fn, "x").retry(3)
            if option == "durable":
                call.durable()
            ref = weakref.ref(call)
            del call
        postlude.drain()
        found[option, fn.__name__] = ref() is None
print([key for key, gone in found.items() if not gone])
"""
    result = subprocess.run(
        [sys.executable, "-c", code, file],
        env={"PYTHONPATH": str(Path(jobs.__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
