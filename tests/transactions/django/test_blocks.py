"""B3 and C2 with Django: what `atomic()` commits and rolls back."""

import threading
from contextlib import suppress

import pytest
from django.db import DatabaseError, OperationalError, transaction
from shops import NoError, dropped

import postlude
from postlude import DeferScope, defer

# -- one block --------------------------------------------------------------


def test_outside_every_block_nothing_waits(shop, ran):
    """An open connection in autocommit is no transaction (A1, AC6)."""
    with DeferScope():
        shop.write("a")
        call = defer(ran.append, 1)
        assert call._gates is None
    assert ran == [1]
    assert call.outcome.committed is None


def test_a_commit_before_the_end(shop, ran):
    """The block ends first, the unit second (A2, B3)."""
    with DeferScope():
        with shop.atomic():
            shop.write("a")
            call = defer(ran.append, 1)
            assert call.state == "pending"  # A7: the handle is there at once
        assert ran == []
    assert ran == [1]
    assert call.outcome.committed is True


def test_a_commit_after_the_end(shop, ran, drained):
    """The unit ends first, the block second (A2, B3)."""
    with shop.atomic():
        with DeferScope():
            shop.write("a")
            call = defer(ran.append, 1)
        assert call.state == "pending"
    drained()
    assert ran == [1]


def test_the_call_sees_what_was_committed(shop, ran):
    """It runs after COMMIT, not beside it (A2)."""
    seen = []

    def look():
        thread = threading.Thread(target=lambda: seen.append(here()))
        thread.start()
        thread.join()

    def here():
        try:
            return shop.titles()
        finally:
            shop.connection.close()

    with DeferScope(), shop.atomic():
        shop.write("a")
        defer(look)
    assert seen == [["a"]]


def test_a_rollback_before_the_end(shop, ran, logged):
    """An exception drops the call, in the log with database and place (A4, S1, C2)."""
    with DeferScope():
        with suppress(NoError), shop.atomic():
            shop.write("a")
            call = defer(ran.append, 1).named("mail")
            raise NoError
        after = defer(ran.append, 2)
    assert dropped(call, shop)
    assert after.state == "done"
    assert ran == [2]
    assert shop.titles() == []
    text = f"mail dropped: rollback of {shop.alias} (deferred at {__file__}:"
    assert any(text in line for line in logged.texts())


def test_a_rollback_after_the_end(shop, ran, logged):
    """Nobody ends the unit then: the watch notices, within about a second (C2, D7)."""
    with suppress(NoError), shop.atomic():
        with DeferScope():
            shop.write("a")
            call = defer(ran.append, 1).named("mail")
        raise NoError
    logged.wait_for(f"mail dropped: rollback of {shop.alias}")
    assert dropped(call, shop)
    assert ran == []


def test_set_rollback(shop, ran):
    """A rollback without an exception is one (A4)."""
    with DeferScope(), shop.atomic():
        shop.write("a")
        call = defer(ran.append, 1)
        transaction.set_rollback(True, using=shop.alias)
    assert dropped(call, shop)


def test_a_commit_that_fails(shop, ran, database):
    """The rollback's path, not the commit's (S10)."""
    if database.kind == "mariadb":  # it defers no constraint, but loses its connection
        table, statement = "select 1", "kill connection_id()"
    else:
        references = "references books_book (id) deferrable initially deferred"
        table = f"create table child (book bigint {references})"
        statement = "insert into child values (7)"
    shop.connection.cursor().execute(table)

    def order():
        with shop.atomic(), suppress(OperationalError):
            order.call = defer(ran.append, 1)
            shop.connection.cursor().execute(statement)

    with DeferScope(), pytest.raises(DatabaseError):
        order()
    assert dropped(order.call, shop)
    assert ran == []


def test_reading_only_makes_no_difference(shop, ran):
    """A block that only read and was left with an exception was rolled back (C2)."""
    with DeferScope(), suppress(NoError), shop.atomic():
        shop.titles()
        call = defer(ran.append, 1)
        raise NoError
    assert dropped(call, shop)


def test_a_call_from_before_is_not_gated(shop, ran):
    """Only what is deferred inside the block waits for it (B3)."""
    with DeferScope():
        call = defer(ran.append, 1)
        with suppress(NoError), shop.atomic():
            raise NoError
    assert call.state == "done"


def test_the_order_of_registration(shop, ran, drained):
    """Calls of a commit that comes last run in order, savepoints or not (AC1, D1)."""
    with shop.atomic():
        with DeferScope():
            defer(ran.append, 1)
            with shop.atomic():
                defer(ran.append, 2)
            defer(ran.append, 3)
        assert ran == []
    drained()
    assert ran == [1, 2, 3]


# -- options ----------------------------------------------------------------


def test_after_commit_false(shop, ran):
    """Such a call waits for no block and goes with none (C2)."""
    with suppress(NoError), shop.atomic():
        with DeferScope():
            call = defer(ran.append, 1).after_commit(False)
        assert ran == [1]
        raise NoError
    assert call.state == "done"


@pytest.mark.parametrize("committed", [True, False])
def test_always_runs_on_both(committed, shop, ran):
    """After a rollback too, and it is told (S3, C2)."""
    with DeferScope(), suppress(NoError), shop.atomic():
        call = defer(ran.append, 1).always()
        if not committed:
            raise NoError
    assert ran == [1]
    assert call.outcome.committed is committed


@pytest.mark.parametrize("committed", [True, False])
def test_a_condition_may_ask_for_the_rollback(committed, shop, ran):
    """`when` is what others call after-rollback; it never runs on commit (S2, AC10)."""
    with DeferScope(), suppress(NoError), shop.atomic():
        defer(ran.append, "kept").when(lambda outcome: outcome.committed)
        defer(ran.append, "lost").when(lambda outcome: not outcome.committed)
        if not committed:
            raise NoError
    assert ran == ["kept" if committed else "lost"]


def test_a_failed_unit_drops_what_was_committed(shop, ran):
    """The unit's own outcome counts as well (C1)."""
    with suppress(NoError), DeferScope():
        with shop.atomic():
            call = defer(ran.append, 1)
        raise NoError
    assert (call.state, call.reason) == ("dropped", "outcome")


# -- hooks of users ---------------------------------------------------------


def test_a_failing_hook_of_users_costs_nothing(shop, ran):
    """Django forgets the hooks after it; but the commit was one (B3)."""

    def fail():
        raise NoError

    with DeferScope(), suppress(NoError), shop.atomic():
        transaction.on_commit(fail, using=shop.alias)
        with shop.atomic():
            call = defer(ran.append, 1)
    assert call.state == "done"
    assert call.outcome.committed is True


def test_hooks_of_users_run_as_ever(shop, ran):
    """In their order, and before the end of the block (AC1)."""
    with DeferScope():
        with shop.atomic():
            transaction.on_commit(lambda: ran.append("one"), using=shop.alias)
            defer(ran.append, "deferred")
            transaction.on_commit(lambda: ran.append("two"), using=shop.alias)
        assert ran == ["one", "two"]
    assert ran == ["one", "two", "deferred"]


def test_a_hook_may_defer(shop, ran):
    """By then no transaction is open (A1, AC3)."""
    with DeferScope():
        with shop.atomic():
            transaction.on_commit(lambda: defer(ran.append, 1), using=shop.alias)
        assert ran == []
    assert ran == [1]


# -- what calls do ----------------------------------------------------------


def test_a_call_writes_for_good(shop):
    """Outside every transaction by then: in autocommit (S9)."""
    with DeferScope(), shop.atomic():
        shop.write("a")
        defer(shop.write, "b")
    shop.connection.close()
    assert shop.titles() == ["a", "b"]


def test_a_call_with_a_block_of_its_own(shop, ran):
    """What it defers waits for its own block, and joins the same drain (A7, S9)."""

    def work():
        with shop.atomic():
            shop.write("kept")
            defer(ran.append, "kept")
            assert ran == []
        with suppress(NoError), shop.atomic():
            shop.write("lost")
            defer(ran.append, "lost")
            raise NoError

    with DeferScope(), shop.atomic():
        defer(work)
    assert ran == ["kept"]
    assert shop.titles() == ["kept"]


def test_without_a_unit_it_runs_after_the_commit(shop, ran, drained):
    """At once means after the commit, with a warning that says so (A5, AC4, S6)."""
    with shop.atomic():
        with pytest.warns(postlude.NoScopeWarning, match="runs after the commit"):
            call = defer(ran.append, 1)
        assert call.state == "pending"
    drained()
    assert ran == [1]
