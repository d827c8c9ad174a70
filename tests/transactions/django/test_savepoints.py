"""C2 with Django: savepoints, joined and durable blocks, several databases."""

from contextlib import suppress

import pytest
from django.db import IntegrityError, transaction
from shops import NoError, dropped

from postlude import DeferScope, defer

# -- savepoints -------------------------------------------------------------


def test_a_rolled_back_savepoint_drops_its_own(shop, ran):
    """And nothing else (AC5, C2)."""
    with DeferScope(), shop.atomic():
        defer(ran.append, 1)
        with suppress(NoError), shop.atomic():
            shop.write("a")
            inner = defer(ran.append, 2)
            raise NoError
        defer(ran.append, 3)
        shop.write("b")
    assert ran == [1, 3]
    assert dropped(inner, shop)
    assert shop.titles() == ["b"]


def test_only_the_savepoint_defers(shop, ran):
    """Where nothing was deferred around it, its rollback drops it too (AC5)."""
    with DeferScope(), shop.atomic():
        with suppress(NoError), shop.atomic():
            inner = defer(ran.append, 1)
            raise NoError
        with suppress(NoError), shop.atomic():
            with shop.atomic():
                second = defer(ran.append, 2)
            third = defer(ran.append, 3)
            raise NoError
        defer(ran.append, 4)
    assert ran == [4]
    assert all(dropped(call, shop) for call in (inner, second, third))


def test_a_released_savepoint_waits_for_the_whole(shop, ran, drained):
    """Its calls run after the outermost commit only (A3)."""
    with shop.atomic():
        with DeferScope(), shop.atomic(), shop.atomic():
            call = defer(ran.append, 1)
        assert call.state == "pending"
    drained()
    assert ran == [1]


def test_a_released_savepoint_goes_with_the_whole(shop, ran):
    """What was released may still be rolled back (A3, A4)."""
    with DeferScope(), suppress(NoError), shop.atomic():
        with shop.atomic():
            call = defer(ran.append, 1)
        raise NoError
    assert dropped(call, shop)


def test_a_released_savepoint_inside_a_rolled_back_one(shop, ran):
    """It goes with the one around it, and the transaction goes on (A3, AC5)."""
    with DeferScope(), shop.atomic():
        with suppress(NoError), shop.atomic():
            with shop.atomic():
                inner = defer(ran.append, 1)
            raise NoError
        defer(ran.append, 2)
    assert ran == [2]
    assert dropped(inner, shop)


def test_a_joined_block_is_no_savepoint(shop, ran):
    """An error swallowed around `savepoint=False` dooms the whole (AC6).

    There the inner block's rollback is of no effect; Django rolls everything back, and
    refuses queries until then. So everything goes.
    """
    with DeferScope(), shop.atomic():
        before = defer(ran.append, 1)
        with suppress(NoError), shop.atomic(savepoint=False):
            inner = defer(ran.append, 2)
            raise NoError
        # A6: elsewhere a doomed transaction counts as none, and the call runs. Here it
        # goes with the work that it belongs to.
        doomed = defer(ran.append, 3)
    assert ran == []
    assert all(dropped(call, shop) for call in (before, inner, doomed))


def test_a_rollback_that_was_called_off(shop, ran):
    """`set_rollback(False)` after a swallowed error: Django commits, and calls run."""
    with DeferScope(), shop.atomic():
        with suppress(NoError), shop.atomic(savepoint=False):
            defer(ran.append, 1)
            raise NoError
        transaction.set_rollback(False, using=shop.alias)
        shop.write("a")
    assert ran == [1]
    assert shop.titles() == ["a"]


def test_an_error_of_the_database_in_a_savepoint(shop, ran):
    """The usual way to try an insert (AC5)."""
    with DeferScope(), shop.atomic():
        with suppress(IntegrityError), shop.atomic():
            inner = defer(ran.append, 1)
            shop.write(None)
        shop.write("a")
        defer(ran.append, 2)
    assert ran == [2]
    assert dropped(inner, shop)


def test_a_savepoint_rolled_back_by_hand(shop, ran):
    """Inside its own block, which goes on: what comes later is kept (AC5)."""
    with DeferScope(), shop.atomic():
        defer(ran.append, 1)
        with shop.atomic():
            inner = defer(ran.append, 2)
            sid = shop.connection.savepoint_ids[-1]
            transaction.savepoint_rollback(sid, using=shop.alias)
            defer(ran.append, 3)
    assert ran == [1, 3]
    assert dropped(inner, shop)


def test_a_durable_block(shop, ran):
    """Commits at its end, wherever it stands (B3)."""
    with DeferScope():
        with shop.atomic(durable=True):
            defer(ran.append, 1)
        with suppress(NoError), shop.atomic(durable=True):
            call = defer(ran.append, 2)
            raise NoError
    assert ran == [1]
    assert dropped(call, shop)


def test_a_durable_block_inside_another(shop, ran):
    """Django refuses it, and the transaction around it goes (S10)."""

    def order():
        with shop.atomic():
            order.call = defer(ran.append, 1)
            with shop.atomic(durable=True):
                pass

    with DeferScope(), pytest.raises(RuntimeError, match="durable"):
        order()
    assert dropped(order.call, shop)


def test_a_decorated_function(shop, ran):
    """The same block over and over, and inside itself (B3, AC5)."""

    @shop.atomic()
    def order(number, fails, then=None):
        defer(ran.append, number)
        if then is not None:
            then()
        if fails:
            raise NoError

    def inner():
        with suppress(NoError):
            order(3, fails=True)

    with DeferScope():
        order(1, fails=False)
        with suppress(NoError):
            order(2, fails=True)
        order(4, fails=False, then=inner)
    assert ran == [1, 4]


# -- several databases ------------------------------------------------------


@pytest.mark.parametrize("last", ["shop", "other"])
def test_two_databases_must_both_commit(last, shop, other, ran, drained):
    """Once, after the last of them (A5)."""
    outer, inner = (shop, other) if last == "shop" else (other, shop)
    with outer.atomic():
        with DeferScope():
            with inner.atomic():
                call = defer(ran.append, 1)
            assert call.state == "pending"
        assert ran == []
    drained()
    assert ran == [1]


@pytest.mark.parametrize("bad", ["outer", "inner"])
def test_either_of_two_databases_drops(bad, shop, other, ran):
    """One of them rolled back is enough (A5, C2)."""
    with DeferScope(), suppress(NoError), shop.atomic():
        with suppress(NoError), other.atomic():
            call = defer(ran.append, 1)
            if bad == "inner":
                raise NoError
        if bad == "outer":
            raise NoError
    assert dropped(call, other if bad == "inner" else shop)


def test_another_databases_end_is_irrelevant(shop, other, ran):
    """A block that was not open around the call has nothing to say (AC7)."""
    with DeferScope():
        with shop.atomic():
            call = defer(ran.append, 1)
        with suppress(NoError), other.atomic():
            raise NoError
    assert call.state == "done"
