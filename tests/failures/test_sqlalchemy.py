"""E2, B3: PostgreSQL, MariaDB and others as a failure store, seen by no gate."""

import multiprocessing
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

import postlude
from postlude import DeferScope, _reporting, _scope, defer
from postlude.exceptions import SettingsError, StoreError
from postlude.failures import Batch, Tally
from postlude.failures._opening import open_store
from postlude.failures.sqlalchemy import SQLAlchemyFailureStore
from postlude.transactions import _around
from postlude.transactions import sqlalchemy as gates

servers = sys.modules["failures_databases"]  # loaded by conftest.py


@pytest.fixture(params=servers.KINDS)
def url(request, tmp_path):
    """The address of a fresh database on each of the servers."""
    for database in servers._make(request.param, tmp_path):
        yield database.url


@pytest.fixture
def store(url):
    """An empty store there."""
    made = SQLAlchemyFailureStore(url)
    yield made
    made.close()


def fail(number=0):
    """Raise what these tests look for."""
    raise ValueError(number)


def count_when_all_are_ready(url, start, told):
    """Make the tables, with others."""
    store = SQLAlchemyFailureStore(url)
    start.wait()
    try:
        store.write(Batch((), (Tally(1, "ended", "", "", "", 1, 0.5),)))
        told.put(store.count())
    except BaseException as exc:  # noqa: BLE001 - the test shows it
        told.put(repr(exc))
    finally:
        store.close()


def test_many_processes_make_the_tables_at_the_same_time(url, store):
    """Eight processes start at once: each finds the tables, nobody an error (E2)."""
    several = multiprocessing.get_context("fork")
    start, told = several.Barrier(8), several.Queue()
    processes = [
        several.Process(target=count_when_all_are_ready, args=(url, start, told))
        for _ in range(8)
    ]
    for process in processes:
        process.start()
    assert [told.get(timeout=60) for _ in processes] == [0] * 8
    for process in processes:
        process.join()
    assert [tally.count for tally in store.tallies(0)] == [8]


def test_those_who_add_to_the_same_numbers_wait_for_each_other(url):
    """However many threads write the same keys in any order, no number is lost (E2)."""
    stores = [SQLAlchemyFailureStore(url) for _ in range(4)]
    stores[0].count()
    start = threading.Barrier(4)

    def write(store):
        start.wait()
        for minute in range(10):
            tallies = [
                Tally(minute, "ended", f"f{n}", "", "", 1, 0.5) for n in range(30)
            ]
            store.write(Batch((), tuple(tallies)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, stores))
    assert {tally.count for tally in stores[0].tallies(0)} == {4}
    assert len(stores[0].tallies(0)) == 300
    for store in stores:
        store.close()


def test_a_newer_schema_is_refused(url, store):
    """Tables of a newer Postlude are left as they are (E2)."""
    store.count()
    store.close()
    engine = create_engine(url)
    with engine.begin() as database:
        database.execute(text("UPDATE postlude_meta SET value = '7'"))
    other = SQLAlchemyFailureStore(url)
    with pytest.raises(StoreError, match=r"version 7, and this .* up to 1.*Upgrade"):
        other.write(Batch())
    with engine.begin() as database:
        database.execute(text("DELETE FROM postlude_meta"))
    with pytest.raises(StoreError, match="without a version"):
        other.count()
    other.close()
    engine.dispose()


def test_tables_that_were_taken_away_are_an_error(url, store, record):
    """A store whose tables are gone says so, and works when it is opened anew (E3)."""
    store.write(Batch((record(),)))
    engine = create_engine(url)
    with engine.begin() as database:
        for name in ("failures", "tallies", "processes", "meta"):
            database.execute(text(f"DROP TABLE postlude_{name}"))
    engine.dispose()
    with pytest.raises(StoreError, match=r"cannot be used: .*Usually .*Start it"):
        store.write(Batch((record(),)))
    store.write(Batch((record(),)))
    assert store.count() == 1


def test_a_connection_that_was_cut_is_made_again(url, store):
    """After the server has ended all connections, the next use works (E3)."""
    store.count()
    if store._engine.dialect.name == "sqlite":
        return  # has none to cut
    kill = {
        "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid != pg_backend_pid()",
        "mariadb": "SELECT CONCAT('KILL ', id) FROM information_schema.processlist "
        "WHERE db = DATABASE() AND id != CONNECTION_ID()",
    }
    engine = create_engine(url)
    with engine.begin() as database:
        found = database.execute(text(kill[engine.dialect.name])).scalars().all()
        if engine.dialect.name == "mariadb":
            for command in found:
                database.execute(text(command))
    engine.dispose()
    assert found
    assert store.count() == 0


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("postgresql+psycopg://ann:s3cret@127.0.0.1:1/x", "Connection refused"),
        ("mysql+pymysql://ann:s3cret@127.0.0.1:1/x", "Can't connect"),
        ("sqlite:////no/such/folder/x.db", "unable to open"),
    ],
)
def test_a_server_that_is_down(address, why):
    """The error names server, cause and fix, and no password (E3)."""
    store = SQLAlchemyFailureStore(address)
    for use in (store.count, lambda: store.write(Batch()), store.list):
        with pytest.raises(StoreError) as caught:
            use()
        text = str(caught.value)
        assert why in text
        assert "Usually the server is down" in text
        assert "s3cret" not in text
        assert "ann" not in repr(store)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("postgresql+asyncpg://ann:s3cret@db/x", "an async driver.*Name a sync driver"),
        ("sqlite+aiosqlite:///x.db", "an async driver"),
        ("nothing://ann:s3cret@db/x", "does not understand.*Write it as"),
        ("postgresql+psycopg2://ann:s3cret@db/x", "driver is not installed.*Install"),
        ("postgresql://db:port/x", "does not understand"),
    ],
)
def test_an_address_that_cannot_be_is_an_error_at_start(address, why):
    """A wrong address is refused when it is set, and no password is told (E2)."""
    with pytest.raises(SettingsError, match=why) as caught:
        open_store(address)
    assert "s3cret" not in str(caught.value)
    postlude.configure(failures=address)
    with pytest.raises(SettingsError, match=why):
        postlude.settings()


# -- gates ---------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch):
    """The gates that begin, each with the unit that would have it."""
    gates.install()
    begun = []
    original = _around.enter

    def enter(gate):
        original(gate)
        begun.append((gate, _scope.current.get()))

    monkeypatch.setattr("postlude.transactions.sqlalchemy._notes.enter", enter)
    return begun


def test_the_stores_own_transactions_are_nobodys_gates(url, seen, drained):
    """What fails in a request is written while others run, and no call of any unit
    waits for it, or goes with its rollback (B3, E2).
    """
    postlude.configure(failures=SQLAlchemyFailureStore(url))
    store = postlude.failure_store()
    ran = []
    before = _around._outside.get()  # what other tests left open in this thread
    for number in range(20):
        with DeferScope() as scope:
            defer(fail, number)
            store.list()  # in the request itself, as a dashboard does
            assert not scope._gates
            defer(ran.append, number)
            assert not scope._gates
    assert _reporting.flush(20)
    drained()
    assert ran == list(range(20))
    assert store.count() == 20
    assert seen
    assert {scope for _, scope in seen} == {None}
    assert _around._outside.get() == before


def test_a_store_that_fails_drops_no_call(url, seen, drained):
    """A store's transaction that is rolled back inside a unit drops no call (C2)."""
    store = SQLAlchemyFailureStore(url)
    store.count()
    ran = []
    with DeferScope():
        with pytest.raises(StoreError):
            store._use(lambda database: database.execute(text("SELECT nothing")))
        defer(ran.append, 1)
    drained()
    assert ran == [1]
    store.close()


@pytest.fixture
def drained():
    """Wait until every call has settled that can."""

    def drained():
        postlude.drain(20)

    return drained


def test_the_stores_transaction_is_its_own(url, tmp_path):
    """What the application rolls back takes no record with it (E2)."""
    store = SQLAlchemyFailureStore(url)
    store.count()
    if store._engine.dialect.name == "sqlite":
        store.close()
        return  # one writer at a time: the application's own transaction comes first
    engine = create_engine(url)
    with engine.connect() as database:
        database.execute(text("CREATE TABLE orders (n INTEGER)"))
        database.commit()
        database.execute(text("INSERT INTO orders VALUES (1)"))
        store.write(Batch((), (Tally(1, "ended", "", "", "", 1, 0.5),)))
        database.rollback()
    assert len(store.tallies(0)) == 1
    engine.dispose()
    store.close()


# -- forks ---------------------------------------------------------------------


def test_a_child_leaves_the_parents_connections_alone(url, record):
    """After a fork both write, each on connections of its own (D8)."""
    store = SQLAlchemyFailureStore(url)
    store.write(Batch((record(),)))
    mine = _connection(store)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store.write(Batch((record(id=f"child-{os.getpid()}"),)))
                code = 0 if _connection(store) != mine or mine is None else 2
                store.close()
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 3
    store.write(Batch((record(),)))
    assert _connection(store) == mine  # nobody has closed it
    assert store.count() == 5
    store.close()


def _connection(store):
    """Give the number that the server has for the connection."""
    queries = {
        "postgresql": "SELECT pg_backend_pid()",
        "mariadb": "SELECT CONNECTION_ID()",
    }
    query = queries.get(store._engine.dialect.name)
    if query is None:
        return None
    return store._use(lambda database: database.execute(text(query)).scalar_one())


def test_a_fork_in_the_middle_of_writing(url, record):
    """Children made while a thread writes do not hang (D8)."""
    store = SQLAlchemyFailureStore(url)
    store.count()
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            store.write(Batch((record(id="busy"),)))

    thread = threading.Thread(target=busy)
    thread.start()
    children = []
    try:
        for n in range(8):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    store.write(Batch((record(id=f"child-{n}"),)))
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        codes = [os.waitpid(child, 0)[1] for child in children]
    finally:
        stop.set()
        thread.join()
    assert codes == [0] * 8
    assert store.count() == 9
    store.close()


def test_an_error_of_the_driver_is_the_stores(store):
    """Whatever SQLAlchemy raises comes as `StoreError`, with its cause (E3)."""
    with pytest.raises(StoreError) as caught:
        store._use(lambda database: database.execute(text("SELECT nothing FROM no")))
    assert caught.value.__cause__ is not None
    assert not isinstance(caught.value, OperationalError)
