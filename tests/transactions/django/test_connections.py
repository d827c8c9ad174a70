"""AC8 with Django: whose connection is asked, and that asking opens none."""

import asyncio
import gc
import threading
from contextlib import suppress

import pytest
from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async
from django.db import connections, transaction
from shops import NoError, dropped
from stage.waiting import PATIENCE

from postlude import DeferScope, defer
from postlude.transactions import _around
from postlude.transactions import django as gates
from postlude.transactions._gate import drop_orphans


def test_installing_twice_is_installing_once():
    """Idempotent, and it returns nothing."""
    before = _around.probes
    assert gates.install() is None
    assert _around.probes == before
    assert before.count(gates._gates) == 1


def test_asking_opens_no_connection(shop, ran):
    """Nor does it make an object for one (AC8)."""
    aliases = []

    def work():
        with DeferScope():
            defer(ran.append, 1)
            aliases.append(connections.all(initialized_only=True))
            connections[shop.alias]  # an object that has never been used
            defer(ran.append, 2)
        assert shop.connection.connection is None

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [1, 2]
    assert aliases == [[]]


def test_a_connection_that_is_opened_later(shop, ran):
    """A thread that has asked once sees the connections it opens afterwards (B3)."""
    calls = []

    def work():
        with DeferScope():
            calls.append(defer(ran.append, 1))
            with suppress(NoError), shop.atomic():
                calls.append(defer(ran.append, 2))
                raise NoError
        shop.connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [1]
    assert dropped(calls[1], shop)


def test_two_threads(shop, ran):
    """Each has its own connection, and so its own transaction (AC8, S7)."""
    inside, deferred = threading.Event(), threading.Event()

    def bad():
        with suppress(NoError), shop.atomic():
            inside.set()
            assert deferred.wait(PATIENCE)
            raise NoError
        shop.connection.close()

    thread = threading.Thread(target=bad)
    thread.start()
    assert inside.wait(PATIENCE)
    with DeferScope():
        call = defer(ran.append, 1)
        deferred.set()
        thread.join()
    assert call._gates is None
    assert ran == [1]


def test_a_thread_that_another_unit_ends(shop, ran, logged):
    """The unit may end in another thread, and the transaction in its own (B3)."""
    inside, ended = threading.Event(), threading.Event()
    scope = DeferScope()
    calls = []

    def work():
        with suppress(NoError), shop.atomic():
            with scope:
                calls.append(defer(ran.append, 1).named("mail"))
            inside.set()
            assert ended.wait(PATIENCE)
            raise NoError
        shop.connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(PATIENCE)
    assert calls[0].state == "pending"
    ended.set()
    logged.wait_for(f"mail dropped: rollback of {shop.alias}")
    thread.join()


def test_a_thread_that_ended_is_forgotten(shop):
    """Postlude keeps neither it nor its connection (AC8)."""

    def work():
        shop.connection.ensure_connection()
        shop.connection.close()
        assert thread in gates._opened.values()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()
    assert thread not in gates._opened.values()


async def wait(awaitable):
    """Await, for `async_to_sync`, which takes functions."""
    await awaitable


@pytest.mark.parametrize("run", [asyncio.run, async_to_sync(wait)])
def test_a_block_around_a_loop(run, shop, ran):
    """A task opens no connection itself, but what waits for its loop counts (B3)."""

    async def work():
        await asyncio.create_task(deferring())

    async def deferring():
        calls.append(defer(ran.append, len(calls)))

    calls = []
    with DeferScope():
        run(work())
        with shop.atomic():
            run(work())
        with suppress(NoError), shop.atomic():
            run(work())
            raise NoError
    assert ran == [0, 1]
    assert dropped(calls[2], shop)


def test_a_task_that_outlives_its_thread(shop, ran):
    """A thread that waits for it no more has blocks of its own (B3)."""
    calls, tasks = [], []
    inside = asyncio.Event()

    async def late():
        await inside.wait()
        calls.append(defer(ran.append, 1))

    async def start():
        tasks.append(asyncio.create_task(late()))

    def in_thread():
        shop.connection.ensure_connection()
        async_to_sync(start)()
        loop = SyncToAsync.threadlocal.main_event_loop
        with suppress(NoError), shop.atomic():
            loop.call_soon_threadsafe(inside.set)
            asyncio.run_coroutine_threadsafe(wait(tasks[0]), loop).result(PATIENCE)
            raise NoError
        shop.connection.close()

    async def main():
        async with DeferScope():
            await sync_to_async(in_thread)()

    asyncio.run(main())
    assert calls[0]._gates is None
    assert ran == [1]


def test_connections_of_tasks(shop, ran, monkeypatch):
    """Where Django lets the loop open them, each task has its own (B3)."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    deferred, inside = asyncio.Event(), asyncio.Event()

    async def bad():
        with suppress(NoError), shop.atomic():
            calls.append(defer(ran.append, "bad"))
            inside.set()
            await deferred.wait()
            raise NoError
        shop.connection.close()

    async def good():
        await inside.wait()
        calls.append(defer(ran.append, "good"))
        deferred.set()

    calls = []

    async def main():
        async with DeferScope():
            await asyncio.gather(bad(), good())

    asyncio.run(main())
    assert ran == ["good"]
    assert dropped(calls[0], shop)


# -- connections that are lost ----------------------------------------------


def test_a_connection_closed_after_the_call(shop, ran):
    """The server rolls back by itself; the call goes (C2)."""
    with DeferScope(), shop.atomic():
        call = defer(ran.append, 1)
        shop.connection.close()
    assert dropped(call, shop)


def test_a_connection_closed_before_the_call(shop, ran):
    """What is deferred in what is left of the block goes as well (C2)."""
    with DeferScope(), shop.atomic():
        shop.connection.close()
        for gate in gates._gates():
            drop_orphans()  # as the watch may at any moment
            assert gate.state == "closed"
        call = defer(ran.append, 1)
    assert dropped(call, shop)


# -- without autocommit -----------------------------------------------------


@pytest.fixture
def manual(shop, monkeypatch):
    """A database whose user commits by himself."""
    monkeypatch.setattr(gates, "_warned", set())
    transaction.set_autocommit(False, using=shop.alias)
    yield shop
    if shop.connection.connection is not None:
        shop.connection.rollback()
        transaction.set_autocommit(True, using=shop.alias)


def test_without_autocommit_nothing_waits(manual, ran, logged):
    """Django tells nobody of such a commit; one warning has the fix (B3)."""
    with DeferScope():
        manual.write("a")
        defer(ran.append, 1)
        defer(ran.append, 2)
    assert ran == [1, 2]
    (text,) = logged.texts()
    assert text == gates.NO_AUTOCOMMIT % manual.alias
    assert "Use `with transaction.atomic():`" in text


def test_a_block_without_autocommit_waits_for_autocommit(manual, ran, drained, logged):
    """As Django's own hooks do; the block alone commits nothing (B3)."""
    with DeferScope(), manual.atomic():
        manual.write("a")
        call = defer(ran.append, 1)
    assert call.state == "pending"
    transaction.commit(using=manual.alias)
    transaction.set_autocommit(True, using=manual.alias)
    drained()
    assert ran == [1]
    assert logged.texts() == []


def test_a_block_without_autocommit_goes_with_a_rollback(manual, ran):
    """Of its own, or of all (C2)."""
    with DeferScope():
        with suppress(NoError), manual.atomic():
            first = defer(ran.append, 1)
            raise NoError
        with manual.atomic():
            second = defer(ran.append, 2)
        transaction.rollback(using=manual.alias)
    assert dropped(first, manual)
    assert dropped(second, manual)


def test_a_site_without_autocommit(shop, ran, logged, monkeypatch):
    """With the setting AUTOCOMMIT off nobody would ever turn it on: a warning (B3)."""
    monkeypatch.setattr(gates, "_warned", set())
    monkeypatch.setitem(shop.connection.settings_dict, "AUTOCOMMIT", False)
    shop.connection.close()
    with DeferScope(), shop.atomic():
        call = defer(ran.append, 1)
    shop.connection.rollback()
    assert call.state == "done"
    assert logged.texts() == [gates.NO_AUTOCOMMIT % shop.alias]
