"""The engines with leases on PostgreSQL keep the port's promises, on a real server."""

import os
import threading
import time

import psycopg
import pytest

import postlude
from postlude.exceptions import QueueError
from postlude.failures import FailureRecord
from postlude.queues import open_queue

LEASE = 30.0


def record_of(job, attempt=1):
    """Make the record of a failed run, with what is hard to store."""
    return FailureRecord(
        id=job.id,
        name=job.name,
        function=job.function,
        arguments={"text": "a \x00 and ü"},
        state="failed",
        unit={},
        site="here",
        exception="ValueError('no \x00')",
        traceback="Traceback\nValueError: no",
        started=1.0,
        ended=2.0,
        attempt=attempt,
        payload=job.payload,
    )


@pytest.fixture
def another(address):
    """Give the same engine as another process has it."""
    opened = []

    def open_another(where=address):
        opened.append(open_queue(where))
        return opened[-1]

    yield open_another
    for one in opened:
        one.close()


def turns(another):
    """Give what other processes find: jobs that may not run again, and jobs to run."""
    ended, taken = [], []
    for _ in range(3):
        one = another()
        ended += one.exhausted()
        taken += one.claim(10, LEASE)
    return ended, taken


def age(address, seconds):
    """Let time pass for the engine: every lease and date of it is older by this."""
    engine, _, libpq = address.partition("+")
    with psycopg.connect(libpq, autocommit=True) as connection:
        for statement in OLDER[engine]:
            connection.execute(statement, {"by": seconds})


OLDER = {
    "absurd": (
        """update absurd.r_postlude set
        available_at = available_at - make_interval(secs => %(by)s),
        claim_expires_at = claim_expires_at - make_interval(secs => %(by)s)""",
    ),
    "procrastinate": (
        """update procrastinate_workers set
        last_heartbeat = last_heartbeat - make_interval(secs => %(by)s)""",
        """update procrastinate_jobs set
        scheduled_at = scheduled_at - make_interval(secs => %(by)s)
        where scheduled_at is not null""",
    ),
}


def test_put_claim_finish(queue, make_job):
    """Jobs come back as written, oldest first, and are gone when done (F1)."""
    jobs = [make_job(n, unit={"path": "/ü"}, backoff=(1.0, 2.0)) for n in range(3)]
    tokens = queue.put(jobs)
    assert len(set(tokens)) == 3
    leases = queue.claim(10, LEASE)
    assert [lease.job for lease in leases] == jobs
    assert [lease.attempt for lease in leases] == [1, 1, 1]
    assert queue.claim(10, LEASE) == []
    queue.finish([lease.token for lease in leases])
    assert (queue.claim(10, LEASE), queue.waiting(), queue.failed()) == ([], [], [])


def test_a_held_job_is_its_holders(queue, make_job):
    """Nobody but begin() gets a job on hold; and it does so once (F2)."""
    (token,) = queue.put([make_job()], hold=LEASE)
    assert queue.claim(10, LEASE) == []
    lease = queue.begin(token, LEASE)
    assert lease.attempt == 1
    assert queue.begin(token, LEASE) is None
    assert queue.extend([], [lease.token], LEASE) == []
    queue.finish([lease.token])
    assert queue.extend([], [lease.token], LEASE) == [lease.token]
    assert queue.begin(token, LEASE) is None


def test_a_hold_ends(queue, address, another, make_job):
    """When its process died before it began, somebody else takes it (F2)."""
    tokens = queue.put([make_job(n) for n in range(2)], hold=LEASE)
    age(address, LEASE - 5)
    assert queue.extend(tokens[:1], [], LEASE) == []
    age(address, 6)
    (lease,) = another().claim(10, LEASE)
    assert lease.job.name == "job-1"
    assert queue.begin(tokens[1], LEASE) is None
    assert queue.extend([tokens[1]], [], LEASE) == [tokens[1]]


def test_a_held_job_can_be_released_or_taken_back(queue, make_job):
    """Released it is anybody's at once; finished it never runs (F2, C4)."""
    tokens = queue.put([make_job(n) for n in range(2)], hold=LEASE)
    queue.release(tokens[:1])
    queue.finish(tokens[1:])
    (lease,) = queue.claim(10, LEASE)
    assert lease.job.name == "job-0"
    assert queue.waiting() == []


def test_a_delay_starts_with_the_release(queue, address, make_job):
    """A delayed job on hold waits for its delay, then is anybody's (F1)."""
    (token,) = queue.put([make_job(delay=100.0)], hold=LEASE)
    queue.release([token])
    ((_, waiting),) = queue.waiting()
    assert 90 < waiting.delay <= 100
    assert queue.claim(10, LEASE) == []
    age(address, 101)
    assert len(queue.claim(10, LEASE)) == 1


def test_a_failure_waits_for_its_pause(queue, address, make_job):
    """A failed run is followed by another after the pause, with the same id (F1)."""
    job = make_job(retries=2)
    queue.put([job])
    (lease,) = queue.claim(10, LEASE)
    queue.fail(lease.token, record_of(job), 50.0)
    assert queue.claim(10, LEASE) == []
    age(address, 51)
    (again,) = queue.claim(10, LEASE)
    assert (again.job.id, again.attempt) == (job.id, 2)
    queue.finish([lease.token])
    assert queue.extend([], [again.token], LEASE) == [], "an old token ended a new run"


def test_the_last_failure_is_kept(queue, make_job):
    """It is listed with its record, can be put back for one run, and forgotten (F1)."""
    job = make_job(retries=3)
    queue.put([job])
    (lease,) = queue.claim(10, LEASE)
    record = record_of(job)
    queue.fail(lease.token, record, None)
    assert list(queue.failed()) == [record]
    assert (queue.retry(["unknown"]), queue.retry([job.id])) == (0, 1)
    assert list(queue.failed()) == []
    (again,) = queue.claim(10, LEASE)
    assert (again.job, again.attempt) == (job, 2)
    queue.fail(again.token, record, None)
    assert (queue.forget([job.id]), list(queue.failed())) == (1, [])


def test_jobs_of_a_dead_process(queue, address, another, make_job):
    """They are taken over when the lease has ended, not before, and counted (F2)."""
    queue.put([make_job(retries=1)])
    (first,) = queue.claim(10, LEASE)
    assert turns(another) == ([], [])
    age(address, LEASE + 1)
    ended, (second,) = turns(another)
    assert (ended, second.job, second.attempt) == ([], first.job, 2)
    queue.finish([first.token])
    assert queue.extend([], [second.token], LEASE) == []


def test_a_job_that_kills_its_processes_ends(queue, address, another, make_job):
    """After its runs it is failed, given to one process, and never run again (F2)."""
    job = make_job(retries=1)
    queue.put([job])
    for attempt in (1, 2):
        ended, (lease,) = turns(another)
        assert (ended, lease.attempt) == ([], attempt)
        age(address, LEASE + 1)
    ((lease, seen),), taken = turns(another)
    assert taken == []
    assert (lease.job.id, lease.attempt) == (job.id, 2)
    assert seen
    (record,) = queue.failed()
    assert (record.id, record.attempt) == (job.id, 2)
    assert queue.retry([job.id]) == 1
    (again,) = queue.claim(10, LEASE)
    assert again.attempt == 3


def test_a_lease_that_nobody_extends_ends(queue, address, another, make_job):
    """Even if its process lives on, and holds other jobs (F2)."""
    postlude.configure(queue_lease=0.5)
    queue.put([make_job(n, retries=3) for n in range(2)])
    forgotten, kept = queue.claim(10, 0.5)
    deadline = time.monotonic() + 10
    taken = []
    other = another()
    while not taken and time.monotonic() < deadline:
        assert queue.extend([], [kept.token], 0.5) == []
        other.exhausted()
        taken = other.claim(10, 0.5)
        threading.Event().wait(0.05)
    assert [lease.job for lease in taken] == [forgotten.job]


def test_keys(queue, make_job):
    """A second job of a known key is not taken; nor of one that is done (F1)."""
    first, second = queue.put([make_job(0, key="order-1"), make_job(1, key="order-1")])
    assert first
    assert not second
    assert queue.begin(second, LEASE) is None
    queue.release([second])
    (lease,) = queue.claim(10, LEASE)
    assert queue.put([make_job(key="order-1")]) == [""]
    queue.finish([lease.token])
    assert queue.put([make_job(key="order-1")]) == [""]
    assert queue.put([make_job(key="order-2")]) != [""]


def test_many_threads_take_each_job_once(queue, make_job):
    """Several threads and connections never get the same job (F2)."""
    queue.put([make_job(n) for n in range(200)])
    got = []

    def take():
        while leases := queue.claim(7, LEASE):
            got.extend(lease.job.name for lease in leases)
            queue.finish([lease.token for lease in leases])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(f"job-{n}" for n in range(200))


def test_all_or_none(queue, address, make_job):
    """Jobs are written together, or not at all (F2)."""
    good, bad = make_job(0), make_job(1)
    with pytest.raises(QueueError):
        queue.put([good, bad._replace(key="\x00")])
    assert queue.waiting() == []


def test_a_forked_child_has_its_own_connections(queue, make_job):
    """The parent's go on to work after a child has ended (D8)."""
    queue.put([make_job(0)])
    before = backend(queue)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            queue.forked()
            queue.put([make_job(1)])
            queue.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert backend(queue) == before, "the child said goodbye for its parent"
    assert [job.name for _, job in queue.waiting()] == ["job-0", "job-1"]


def backend(queue):
    """Give the server's process behind this thread's connection."""
    with queue.database.use() as connection:
        return connection.info.backend_pid


def test_the_server_ends_a_connection(queue, address, make_job):
    """A restart of the server costs nobody a call: the next use opens anew (F2)."""
    queue.put([make_job(0)])
    with psycopg.connect(address.partition("+")[2], autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where application_name = 'postlude' and datname = current_database()"
        )
    assert queue.put([make_job(1)])


def test_no_server(address, another, make_job):
    """An engine that cannot be reached says so in three beats, never silently (F2)."""
    queue = another(f"{address.partition('+')[0]}+postgresql://u@127.0.0.1:1/x")
    with pytest.raises(QueueError, match="Look at it"):
        queue.put([make_job()])


def test_no_tables(address, another, make_job):
    """A database without the engine's tables is told with the command (F4)."""
    where = address.rpartition("/")[0] + "/postgres"
    with pytest.raises(QueueError, match="Make them once"):
        another(where).put([make_job()])


def test_what_it_can(queue):
    """The capabilities say what the tests above show (F4)."""
    can = queue.can
    assert (can.at_least_once, can.leases, can.transactional) == (True, True, True)
    assert postlude.Settings().queue_lease < can.recovery < 40


def test_a_row_that_is_no_job(queue, address, another):
    """It is given as a job that will be refused, whatever stands in it (F3)."""
    engine, _, libpq = address.partition("+")
    texts = ['"no object"', "{}", '{"job": 7}', '{"job": "{", "runs": "x"}', "null"]
    with psycopg.connect(libpq, autocommit=True) as connection:
        for text in texts:
            connection.execute(FORGED[engine], {"args": text})
    leases = queue.claim(10, LEASE)
    assert [lease.job.function for lease in leases] == [""] * len(texts)
    age(address, LEASE + 1)
    ended, _ = turns(another)
    assert len(ended) == len(texts)
    assert len(list(queue.failed())) == len(texts)


FORGED = {
    "absurd": (
        "select absurd.spawn_task('postlude', 'postlude', %(args)s::jsonb, "
        """'{"max_attempts": 1}')"""
    ),
    "procrastinate": (
        "insert into procrastinate_jobs (queue_name, task_name, args) "
        "values ('postlude', 'postlude:run', %(args)s::jsonb)"
    ),
}
