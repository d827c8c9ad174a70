"""A durable call exists in the engine if and only if its order does (F2)."""

import sys

import psycopg
import pytest
from django.db import transaction
from random_orders import (
    LIBRARIES,
    TABLE,
    blocks,
    deliver,
    delivered,
    known_to_django,
    promise,
)

import postlude
from postlude import DeferScope, _call, defer
from postlude.exceptions import QueueError, QueueOptionError
from postlude.transactions import psycopg as psycopg_gates
from postlude.transactions import sqlalchemy as sqlalchemy_gates

MANY = 1_000


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
    delivered.clear()
    libpq = address.partition("+")[2]
    with psycopg.connect(libpq, autocommit=True) as connection:
        connection.execute("set lock_timeout to 5000")
        connection.execute("drop table if exists orders")
        connection.execute(TABLE)
    postlude.configure(queue=address, queue_threads=0, modules=("random_orders",))
    postlude.settings()
    yield libpq
    postlude.drain(5)


def stored(shop):
    """Give the names of the orders."""
    with psycopg.connect(shop) as connection:
        return sorted(name for (name,) in connection.execute("select name from orders"))


def waiting(queue):
    """Give the names of the jobs."""
    return sorted(job.name for _, job in queue.waiting())


@pytest.mark.timeout(600)  # half a minute on two busy cores, and there is worse
@pytest.mark.parametrize("library", LIBRARIES)
async def test_random_commits_and_rollbacks(library, shop, queue):
    """Of 1,000 transactions with savepoints, exactly what was committed (F2)."""
    async with DeferScope():
        await LIBRARIES[library](shop, blocks(MANY, seed=7))
        orders = stored(shop)
        assert MANY / 2 < len(orders) < 3 * MANY
        assert waiting(queue) == orders
    assert sorted(delivered) == orders
    postlude.drain(10)
    assert waiting(queue) == []


# -- one by one, on psycopg ---------------------------------------------------


def order(connection, name):
    """Write an order."""
    connection.execute("insert into orders (name) values (%s)", [name])


def test_a_write_that_fails_fails_the_commit(shop, queue, monkeypatch):
    """So the request becomes an error, and there is no order without its job (F2)."""

    def fail(*_args, **_options):
        raise QueueError("no room")

    monkeypatch.setattr(_call.carrier.queue, "write", fail)
    with DeferScope(), psycopg.connect(shop) as connection:
        order(connection, "one")
        promise("one")
        with pytest.raises(QueueError, match="no room"):
            connection.commit()
        connection.rollback()
    assert (stored(shop), waiting(queue), delivered) == ([], [], [])


def test_a_transaction_that_outlives_the_head(shop, queue):
    """What it will write is not written before the response as well (F2)."""
    with DeferScope() as scope:
        with psycopg.connect(shop) as connection:
            order(connection, "one")
            promise("one")
            _call.carrier.secure(scope)
            assert waiting(queue) == []
            order(connection, "two")
            promise("two")  # late: the head has left
            assert waiting(queue) == []
        assert waiting(queue) == ["one", "two"]
    assert delivered == ["one", "two"]


def test_a_rule_of_its_own_may_outlive_a_rollback(shop, queue):
    """So such a call is written before the response, not in it (C2, F2)."""
    with DeferScope() as scope, psycopg.connect(shop) as connection:
        order(connection, "one")
        defer(deliver, "one").named("one").always().durable()
        defer(deliver, "two").named("two").durable().always()
        defer(deliver, "three").named("three").durable().after_commit(False)
        connection.commit()
        assert waiting(queue) == []
        _call.carrier.secure(scope)
        assert waiting(queue) == ["one", "three", "two"]
    assert delivered == ["one", "two", "three"]


def test_a_cancelled_call_is_not_written(shop, queue):
    """Nor one that another of its name replaced (C3, C4)."""
    with DeferScope():
        with psycopg.connect(shop) as connection:
            order(connection, "one")
            defer(deliver, "no").durable().cancel()
            promise("one")
            promise("one")
        assert waiting(queue) == ["one"]
    assert delivered == ["one"]


def test_queue_joins_too(shop, queue):
    """What only workers run is written in the transaction as well, held until the end
    of the unit; also outside of every unit (F2).
    """
    with psycopg.connect(shop) as connection:
        with DeferScope():
            order(connection, "one")
            postlude.queue(deliver, "one").named("one")
            connection.commit()
            assert queue.claim(1, 30) == []
            assert waiting(queue) == ["one"]
            order(connection, "two")
            postlude.queue(deliver, "two").named("two")
            connection.rollback()
        postlude.drain(5)
        assert [lease.job.name for lease in queue.claim(9, 30)] == ["one"]
        order(connection, "three")
        postlude.queue(deliver, "three")
        assert waiting(queue) == []
        connection.commit()
    assert len(waiting(queue)) == 1
    assert delivered == []


def test_another_database(shop, queue, address):
    """There the call is written before the response, by the engine itself (F2)."""
    elsewhere = shop.rpartition("/")[0] + "/postgres"
    with DeferScope() as scope:
        with psycopg.connect(elsewhere) as connection:
            connection.execute("create temporary table orders (name text)")
            order(connection, "one")
            promise("one")
        assert waiting(queue) == []
        _call.carrier.secure(scope)
        assert waiting(queue) == ["one"]
    assert delivered == ["one"]


def test_another_way_to_the_same_database(shop, queue):
    """The database counts, not the address: each way writes in the transaction (F2)."""
    with DeferScope():
        with psycopg.connect(shop.replace("127.0.0.1", "localhost")) as connection:
            order(connection, "one")
            promise("one")
        assert waiting(queue) == ["one"]


def test_after_a_restart_of_the_server(shop, queue):
    """It is asked again who it is before two are taken for different ones (F2)."""
    carrier = _call.carrier
    promise_in_a_transaction(shop, "one")
    name, oid, started = carrier._joining._asked.wait()
    carrier._joining._asked.result = (name, oid, started.replace(year=2000))
    with DeferScope():
        with psycopg.connect(shop) as connection:
            order(connection, "two")
            promise("two")
        assert waiting(queue) == ["two"]


def test_a_forked_child_asks_over_its_own_line(shop, queue):
    """The thread of its parent's line is not there to answer (D8)."""
    promise_in_a_transaction(shop, "one")
    postlude.drain(5)
    carrier = _call.carrier
    before = carrier._joining
    carrier.forked()
    assert carrier._joining is not before
    assert carrier._joining._line is carrier.line


def promise_in_a_transaction(shop, name):
    """Do what a request does."""
    with DeferScope(), psycopg.connect(shop) as connection:
        order(connection, name)
        promise(name)


async def test_before_the_engine_has_said_who_it_is(shop, queue, monkeypatch):
    """On an event loop nobody waits for that: the addresses decide (F2)."""
    joining = _call.carrier._joining
    monkeypatch.setattr(joining, "ask", lambda: None)
    async with DeferScope():
        with psycopg.connect(shop) as connection:
            order(connection, "one")
            promise("one")
        assert waiting(queue) == ["one"]
        with psycopg.connect(shop.rpartition("/")[0] + "/postgres") as connection:
            connection.execute("select 1")
            promise("two")
        assert waiting(queue) == ["one"]


def test_names_mean_the_same_in_a_strangers_transaction(shop, queue):
    """Whatever schemas the caller's connection looks into, before and after (F2)."""
    with DeferScope():
        with psycopg.connect(shop) as connection:
            connection.execute("create schema if not exists shop")
            connection.execute("set search_path to shop")
            connection.execute("create table if not exists orders (name text)")
            order(connection, "one")
            promise("one")
        assert waiting(queue) == ["one"]


# -- Django: at once ----------------------------------------------------------


def test_django_options_come_before_durable(shop, queue):
    """It is written at once, so a later option is refused, by name (F4)."""
    with known_to_django(shop) as alias, DeferScope():
        with transaction.atomic(using=alias):
            call = defer(deliver, "one").named("one").durable()
            for late in (
                lambda: call.retry(3),
                lambda: call.named("x"),
                lambda: call.timeout(1),
                call.always,
                lambda: call.after_commit(False),
            ):
                with pytest.raises(QueueOptionError, match=r"Set it last"):
                    late()
            call.durable()
        assert waiting(queue) == ["one"]
    assert delivered == ["one"]


def test_django_a_cancelled_call_leaves_at_the_commit(shop, queue):
    """Its job cannot be seen before, and is gone soon after (C3, C4)."""
    with known_to_django(shop) as alias:
        with DeferScope(), transaction.atomic(using=alias):
            defer(deliver, "no").named("no").durable().cancel()
            promise("one")
            promise("one")
        postlude.drain(10)
        assert waiting(queue) == []
    assert delivered == ["one"]


def test_options_after_it_was_written(shop, queue):
    """What is said after the head, or after the commit, is written, too (F2, F4)."""
    with DeferScope() as scope:
        with psycopg.connect(shop) as connection:
            order(connection, "one")
            call = defer(deliver, "one").named("one").durable()
        call.timeout(7)
        _call.carrier.secure(scope)
        defer(deliver, "two").durable().timeout(8).named("two").retry(5)
        found = sorted(
            (job.name, job.timeout, job.retries) for _, job in queue.waiting()
        )
        assert found == [("one", 7, 3), ("two", 8, 5)]
    assert delivered == ["one", "two"]
    postlude.drain(5)
    assert waiting(queue) == []


@pytest.mark.parametrize(
    ("option", "row"),
    [
        (lambda call: call.named("other"), ("other", None, 3)),
        (lambda call: call.timeout(7), ("one", 7, 3)),
        (lambda call: call.retry(5), ("one", None, 5)),
    ],
    ids=["named", "timeout", "retry"],
)
def test_each_option_after_the_commit_is_written(shop, queue, option, row):
    """By itself, in the one row that the call then has (F2, F4)."""
    with DeferScope():
        with psycopg.connect(shop) as connection:
            order(connection, "one")
            call = defer(deliver, "one").named("one").durable()
        option(call)
        ((token, job),) = queue.waiting()
        assert (job.name, job.timeout, job.retries) == row
        assert queue.claim(1, 30) == []
        assert [*_call.carrier.line.held] == [token], "nobody keeps it from others"
    assert delivered == ["one"]
    postlude.drain(5)
    assert waiting(queue) == []


@pytest.mark.parametrize("kind", ["durable", "queue"])
def test_a_call_that_is_cancelled_after_the_commit(shop, queue, kind):
    """Its job leaves the engine, and nobody runs it (C4, F2)."""
    with DeferScope():
        with psycopg.connect(shop) as connection:
            order(connection, "one")
            if kind == "durable":
                call = defer(deliver, "one").named("one").durable()
            else:
                call = postlude.queue(deliver, "one").named("one")
        assert waiting(queue) == ["one"]
        call.cancel()
        postlude.drain(5)
        assert waiting(queue) == []
    assert (call.reason, delivered, stored(shop)) == ("cancelled", [], ["one"])


def test_a_library_that_tells_nobody(address, queue, monkeypatch, caplog):
    """It is said once that a line is missing, and which; nothing is silent (F2)."""
    monkeypatch.delitem(sys.modules, "postlude.transactions.sqlalchemy", raising=False)
    postlude.configure(queue=address, queue_threads=0, modules=("random_orders",))
    for name in ("one", "two"):
        with DeferScope():
            promise(name)
    said = [record.getMessage() for record in caplog.records]
    (text,) = [each for each in said if "sqlalchemy.install()" in each]
    assert "nobody tells Postlude of SQLAlchemy's" in text
    assert "a rollback does not drop it" in text


def test_no_library_that_could_tell(address, queue, monkeypatch, caplog):
    """Whoever does not use SQLAlchemy is not told of it (F2)."""
    for name in ("postlude.transactions.sqlalchemy", "sqlalchemy.engine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    postlude.configure(queue=address, queue_threads=0, modules=("random_orders",))
    with DeferScope():
        promise("one")
    assert "install()" not in caplog.text


def test_a_library_that_tells(shop, queue, caplog):
    """Nothing is said where the line is there (F2)."""
    with DeferScope():
        promise("one")
    assert "install()" not in caplog.text
