"""DBOS on PostgreSQL: what it promises, with real workers on a real server."""

import base64
import json
import os
import pickle
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from dbos import DBOS
from killing.engine import Engine
from killing.stand import stand
from places import database, place
from random_orders import LIBRARIES, TABLE, blocks, promise

import postlude
from postlude import DeferScope, defer
from postlude.exceptions import QueueError
from postlude.queues import Job, open_queue, run
from postlude.transactions import psycopg as psycopg_gates
from postlude.transactions import sqlalchemy as sqlalchemy_gates

sys.path.insert(0, str(Path(__file__).parents[1] / "brokers/stage"))

from broker_proxy import Proxy

pytestmark = pytest.mark.timeout(300)
ENGINE = Engine("dbos", lambda _folder: place("dbos"), leases=False, recovery=15.0)
STATES = "select status from dbos.workflow_status order by created_at, workflow_uuid"


@pytest.fixture(scope="module", params=["dbos"])
def address(request):
    """A database with DBOS's tables, and no worker."""
    with database(request.param) as address:
        yield address


@pytest.fixture
def queue(address):
    """The engine with no jobs."""
    queue = open_queue(address)
    yield queue
    queue.close()
    execute(address, "truncate dbos.workflow_status, dbos.workflow_input cascade")


@pytest.fixture
def site(tmp_path):
    """Processes on a database of their own."""
    with stand(ENGINE, tmp_path) as made:
        yield made


@pytest.fixture
def jobs(site):
    """The engine of the site."""
    queue = open_queue(site.environment["POSTLUDE_QUEUE"])
    yield queue
    queue.close()


def execute(address, statement, params=None):
    """Run one statement past the engine; gives its rows."""
    libpq = address.partition("+")[2]
    with psycopg.connect(libpq, autocommit=True) as connection:
        cursor = connection.execute(statement, params)
        return cursor.fetchall() if cursor.description else []


def a_job(function, *args, **fields):
    """Give a job as somebody could forge it."""
    payload = json.dumps([list(args), {}])
    return Job(os.urandom(8).hex(), "forged", function, payload, **fields)


# -- what is written ----------------------------------------------------------


def test_what_it_can(queue):
    """The capabilities say what the tests below show (F4)."""
    can = queue.can
    assert (can.at_least_once, can.leases, can.transactional) == (True, False, True)
    assert (can.delays, can.keys, can.keeps_failures) == (True, True, True)


def test_a_known_key_is_not_taken(queue, address, make_job):
    """A second job of a key is none, whether the first waits or is done (F1)."""
    first, second = queue.put([make_job(0, key="k"), make_job(1, key="k")])
    assert first
    assert not second
    execute(address, "update dbos.workflow_status set status = 'SUCCESS'")
    assert queue.put([make_job(2, key="k")]) == [""]
    assert queue.put([make_job(3, key="other")]) != [""]
    assert len(execute(address, STATES)) == 2


def test_all_or_none(queue, address, make_job):
    """Jobs are written together, or not at all (F2)."""
    with pytest.raises(QueueError):
        queue.put([make_job(0), make_job(1, key="\x00")])
    assert execute(address, STATES) == []


def test_what_follows_is_written_once(queue, address, make_job):
    """Also if the process dies between that and its workflow's end (F2)."""
    (token,) = queue.put([make_job(0, retries=3)])
    for _ in range(2):
        queue.again(token, make_job(0, retries=3, attempt=1, delay=60.0))
    assert sorted(execute(address, STATES)) == [("DELAYED",), ("ENQUEUED",)]


def test_what_is_done_is_swept(queue, address, make_job):
    """After an hour, with a key after a day; what waits or has failed stays (F1)."""
    ends = [("SUCCESS", None), ("SUCCESS", "k"), ("ENQUEUED", None), ("ERROR", None)]
    for state, key in ends:
        (workflow,) = queue.put([make_job(key=key)])
        execute(
            address,
            "update dbos.workflow_status set status = %s, updated_at = updated_at - "
            "7200000 where workflow_uuid = %s",
            [state, workflow],
        )
    queue._swept -= 1e6
    queue.sweep()
    left = execute(address, STATES)
    assert left == [("SUCCESS",), ("ENQUEUED",), ("ERROR",)]
    assert execute(address, "select count(*) from dbos.workflow_input") == [(3,)]


def test_no_tables_and_no_server(address, make_job):
    """Both are said in three beats, never silently (F2, F4)."""
    elsewhere = open_queue(address.rpartition("/")[0] + "/postgres")
    with closing(elsewhere), pytest.raises(QueueError, match="dbos migrate"):
        elsewhere.put([make_job()])
    with pytest.raises(QueueError, match="Look at it"):
        open_queue("dbos+postgresql://u@127.0.0.1:1/x").put([make_job()])


def test_a_process_has_one_dbos(queue, tmp_path):
    """Where the application has made its own, a worker says so and ends (F4)."""
    theirs = f"sqlite:///{tmp_path}/theirs.db"
    DBOS(config={"name": "theirs", "system_database_url": theirs})
    try:
        with pytest.raises(QueueError, match="one of it per process"):
            queue.work(run, threading.Event(), 1)
    finally:
        DBOS.destroy()


def test_a_worker_without_a_server_ends():
    """It says what is the matter (F2)."""
    queue = open_queue("dbos+postgresql://u@127.0.0.1:1/x")
    with pytest.raises(QueueError, match="Look at it"):
        queue.work(run, threading.Event(), 1)
    DBOS.destroy()


def test_a_forked_child_has_its_own_connections(queue, address, make_job):
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
    queue.put([make_job(2)])
    assert len(execute(address, STATES)) == 3


def backend(queue):
    """Give the server's process behind this thread's connection."""
    with queue.database.use() as connection:
        return connection.info.backend_pid


# -- in the caller's transaction ----------------------------------------------


@pytest.fixture
def anyio_backend():
    """One loop will do."""
    return "asyncio"


@pytest.fixture
def shop(address, queue, blockbuster):
    """Give the address of a database that holds orders, and the engine's jobs."""
    blockbuster.deactivate()  # the sync libraries block the test's own loop
    sqlalchemy_gates.install()
    psycopg_gates.install()
    execute(address, "drop table if exists orders")
    execute(address, TABLE)
    postlude.configure(queue=address, modules=("random_orders",))
    postlude.settings()
    yield address.partition("+")[2]
    postlude.drain(5)


def waiting(address):
    """Give the names of the jobs."""
    found = execute(address, "select inputs from dbos.workflow_input")
    jobs = [Job.read(json.loads(text)["positionalArgs"][0]) for (text,) in found]
    return sorted(job.name for job in jobs)


@pytest.mark.parametrize("library", LIBRARIES)
async def test_random_commits_and_rollbacks(library, shop, address):
    """Of 300 transactions with savepoints, exactly what was committed (F2)."""
    async with DeferScope():
        await LIBRARIES[library](shop, blocks(300, seed=7))
        orders = [name for (name,) in execute(address, "select name from orders")]
        assert 150 < len(orders) < 900
        assert waiting(address) == sorted(orders)
    postlude.drain(10)
    assert waiting(address) == sorted(orders)


def test_an_open_transaction_elsewhere_is_an_error(shop, address):
    """Workers begin what is written, so it cannot wait for that commit (F2, F4)."""
    elsewhere = shop.rpartition("/")[0] + "/postgres"
    with psycopg.connect(elsewhere) as connection:
        scope = DeferScope()
        with scope:
            connection.execute("create temporary table orders (name text)")
            promise("one")
            with pytest.raises(QueueError):
                postlude._call.carrier.secure(scope)
        connection.rollback()
    assert waiting(address) == []


# -- workers ------------------------------------------------------------------


def test_jobs_run_and_failures_are_listed_retried_and_forgotten(site, jobs):
    """Pauses and attempts are kept, the last failure is in DBOS's list (F1)."""
    web = site.web()
    site.worker()
    assert site.post(web, "queue", "anote", "plain")
    assert site.post(web, "queue", "flaky", "twice", times=2)
    assert site.post(web, "retry", "flaky", "never", times=9, retries=1)
    site.until(lambda: {"plain", "twice"} <= site.done() and list(jobs.failed()))
    begun = site.lines("began", "twice")
    assert [line.attempt for line in begun] == [1, 2, 3]
    assert len({line.call for line in begun}) == 1
    (record,) = jobs.failed()
    assert (record.attempt, record.name) == (2, "killing.calls:flaky")
    assert "attempt 2 of never" in record.exception
    assert [one.id for one in site.records()] == [record.id]
    assert (jobs.retry(["unknown"]), jobs.retry([record.id])) == (0, 1)
    site.until(lambda: len(site.lines("began", "never")) == 3 and list(jobs.failed()))
    assert (jobs.forget([record.id]), list(jobs.failed())) == (1, [])


def test_a_delay_is_waited_for(site, jobs):
    """`queue(delay=)` begins no earlier (F4)."""
    site.worker()
    jobs.put([a_job("killing.calls:note", "later", delay=2.0)])
    jobs.put([a_job("killing.calls:note", "now")])
    site.until(lambda: {"now", "later"} <= site.done())
    ((early,),) = execute(
        site.environment["POSTLUDE_QUEUE"],
        "select started_at_epoch_ms - delay_until_epoch_ms from dbos.workflow_status "
        "where delay_until_epoch_ms is not null",
    )
    assert early >= 0


def forge(address, inputs, *, name="postlude_run", serialization="portable_json"):
    """Write a workflow as a stranger could."""
    ident = os.urandom(4).hex()
    execute(
        address,
        "insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, "
        "created_at, updated_at, priority, recovery_attempts, serialization) "
        "values (%s, 'ENQUEUED', %s, 'postlude', 1, 1, 0, 0, %s)",
        [ident, name, serialization],
    )
    if inputs is not None:
        execute(
            address,
            "insert into dbos.workflow_input values (%s, %s, 1)",
            [ident, inputs],
        )


def test_a_job_that_dbos_named_is_run_again_like_any_other(site):
    """As its own tools do, whose names for workflows are not Postlude's (F1)."""
    job = a_job("killing.calls:flaky", "forked", 2, retries=3)
    inputs = {"positionalArgs": [job.text()], "namedArgs": {}}
    forge(site.environment["POSTLUDE_QUEUE"], json.dumps(inputs))
    site.worker()
    site.until(lambda: "forked" in site.done())
    assert [line.attempt for line in site.lines("began", "forked")] == [1, 2, 3]


class Bomb:
    """What does something when it is unpickled."""

    def __init__(self, path):
        """Name the file that tells of it."""
        self.path = path

    def __reduce__(self):
        """Make the file."""
        return (Path.touch, (Path(self.path),))


def test_forged_messages_are_refused_recorded_and_never_run(site, jobs, tmp_path):
    """What a stranger writes is on record, and the next job runs (F3)."""
    address = site.environment["POSTLUDE_QUEUE"]
    bad = [
        a_job("os:system", "touch forged").text(),
        a_job("killing.calls:nobody", "x").text(),
        a_job("killing.calls:os.getpid").text(),
        a_job("killing.calls:note", 1, 2, 3).text(),
        "{not json",
        "[]",
        "x" * 50_000_000,
    ]
    for text in bad:
        inputs = {"positionalArgs": [text], "namedArgs": {}}
        forge(address, json.dumps(inputs))
    forge(address, '{"positionalArgs": [1, 2], "namedArgs": {"x": 1}}')
    trap = tmp_path / "unpickled"
    pickled = pickle.dumps({"args": (Bomb(str(trap)),), "kwargs": {}})
    unread = ["{", "[]", "7", base64.b64encode(pickled).decode()]
    for inputs in unread[:-1]:
        forge(address, inputs)
    forge(address, unread[-1], serialization="py_pickle")
    forge(address, unread[-1], serialization="unheard-of")
    strangers = [("os.system", "{}"), ("temp_workflow", "{}"), ("postlude_run", None)]
    for name, inputs in strangers:
        forge(address, inputs, name=name)
    jobs.put([a_job("killing.calls:note", "good")])
    site.worker()
    site.until(lambda: "good" in site.done())
    forged = len(bad) + 1 + len(unread) + 1 + len(strangers)
    site.until(
        lambda: len({one.id for one in (*site.records(), *jobs.failed())}) == forged
    )
    assert not trap.exists()
    assert {line.name for line in site.lines()} == {"good"}
    assert not {one.state for one in site.records()} - {"failed"}


def test_a_broken_connection_costs_no_job_a_second_run(site, jobs):
    """A worker whose lock is gone takes it again before another takes its jobs (F2)."""
    address = site.environment["POSTLUDE_QUEUE"]
    web = site.web()
    site.worker()
    site.worker()
    holders = (
        "select count(distinct pid) from pg_locks join pg_database as here "
        "on here.oid = database where locktype = 'advisory' and objsubid = 1 "
        "and datname = current_database() and pid in (select pid "
        "from pg_stat_activity where application_name = 'postlude') "
        "and not pid = any(%s)"
    )
    site.until(lambda: execute(address, holders, [[0]]) == [(2,)])
    assert site.post(web, "queue", "wait", "long")
    site.running("long")
    ends = [
        pid
        for (pid,) in execute(
            address,
            "select pg_terminate_backend(pid)::int * pid from pg_locks join "
            "pg_database as here on here.oid = database where locktype = 'advisory' "
            "and objsubid = 1 and datname = current_database() and pid in (select pid "
            "from pg_stat_activity where application_name = 'postlude')",
        )
    ]
    assert len(ends) == 2
    site.until(lambda: execute(address, holders, [ends]) == [(2,)])
    site.gate.touch()
    site.until(lambda: "long" in site.done())
    assert [line.attempt for line in site.lines("began", "long")] == [1]


@contextmanager
def through_a_proxy(folder):
    """Give DBOS's tables behind what can be cut."""
    del folder
    with place("dbos") as environment:
        queue = environment["POSTLUDE_QUEUE"]
        server = urlsplit(queue)
        proxy = Proxy(server.hostname or "", server.port or 5432)
        there = server.netloc.rpartition("@")[2]
        try:
            yield (
                {
                    **environment,
                    "POSTLUDE_QUEUE": queue.replace(there, f"127.0.0.1:{proxy.port}"),
                },
                proxy,
            )
        finally:
            proxy.cut()


def test_a_server_that_is_down_is_never_silent_and_work_goes_on(tmp_path):
    """`.durable()` is an error, `.retry()` a record; then all goes on (F1, F2)."""
    with through_a_proxy(tmp_path) as (environment, proxy):

        @contextmanager
        def known(_folder):
            yield environment

        engine = Engine("dbos", known, leases=False, recovery=15.0)
        with stand(engine, tmp_path) as site:
            web = site.web()
            site.worker()
            assert site.post(web, "durable", "note", "first")
            site.until(lambda: "first" in site.done())
            assert site.post(web, "durable", "wait", "long")
            site.until(lambda: site.lines("began", "long"))
            proxy.cut()
            assert not site.post(web, "durable", "note", "refused")
            assert site.post(web, "retry", "flaky", "recorded", times=1)
            site.until(site.records)
            (record,) = site.records()
            assert (record.attempt, record.refusal) == (1, None)
            site.gate.touch()
            proxy.mend()
            site.until(lambda: site.post(web, "durable", "note", "back"))
            site.until(lambda: {"back", "long"} <= site.done())
            assert "refused" not in site.done()


def test_defer_without_a_worker_waits(shop, address):
    """What is durable is on the queue when its unit has ended (F2)."""
    from random_orders import deliver  # noqa: PLC0415 - beside the others above

    with DeferScope():
        call = defer(deliver, "one").named("one").durable()
    assert call.state == "handed_over"
    assert waiting(address) == ["one"]
