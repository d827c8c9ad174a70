"""Procrastinate's own worker runs the same jobs (F1, F2)."""

import secrets

from killing.engine import Engine
from killing.stand import stand
from places import place

from postlude.queues import open_queue

WORKER = (
    "-m",
    "procrastinate",
    "--app=postlude.queues.procrastinate.app",
    "worker",
    "--queues=postlude",
)


def procrastinate(_folder):
    """Give tables that only Procrastinate's worker looks at."""
    return place("procrastinate", POSTLUDE_QUEUE_THREADS="0")


def test_it_runs_jobs_and_retries_them(tmp_path):
    """Attempts are counted, pauses kept, and the id is the same in all of them (F1)."""
    engine = Engine("own", procrastinate, leases=True, recovery=70, worker=WORKER)
    with stand(engine, tmp_path) as one:
        web = one.web()
        one.worker()
        assert one.post(web, "queue", "note", "plain")
        assert one.post(web, "queue", "flaky", "twice", times=2)
        assert one.post(web, "retry", "flaky", "handed", times=1)
        one.until(lambda: one.done() == {"plain", "twice", "handed"})
        begun = one.lines("began", "twice")
        assert [line.attempt for line in begun] == [1, 2, 3]
        assert len({line.call for line in begun}) == 1
        assert [line.attempt for line in one.lines("began", "handed")] == [1, 2]


def test_it_fails_what_fails_for_good(tmp_path):
    """After the last run the job is in Procrastinate's own list, with its record."""
    engine = Engine("own", procrastinate, leases=True, recovery=70, worker=WORKER)
    name = secrets.token_hex(4)
    with stand(engine, tmp_path) as one:
        web = one.web()
        one.worker()
        assert one.post(web, "queue", "flaky", name, times=9, retries=1)
        queue = open_queue(one.environment["POSTLUDE_QUEUE"])
        one.until(lambda: list(queue.failed()))
        (record,) = queue.failed()
        queue.close()
    assert (record.attempt, record.name) == (2, "killing.calls:flaky")
    assert f"attempt 2 of {name}" in record.exception


def test_it_rescues_the_jobs_of_a_killed_worker(tmp_path):
    """A periodic task of Postlude's does, which Procrastinate leaves to its users."""
    engine = Engine("own", procrastinate, leases=True, recovery=70, worker=WORKER)
    with stand(engine, tmp_path) as one:
        web = one.web()
        victim = one.worker()
        assert one.post(web, "queue", "wait", "long")
        one.until(lambda: one.lines("began", "long"))
        victim.kill()
        one.gate.touch()
        one.worker()
        one.until(lambda: "long" in one.done())
        assert [line.attempt for line in one.lines("began", "long")] == [1, 2]
