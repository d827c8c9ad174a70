"""AC9 and G1 with Django: the transaction that wraps a test does not count."""

from contextlib import suppress

import pytest
from django.db import transaction
from django.test import TestCase, TransactionTestCase
from shops import NoError, dropped

from postlude import DeferScope, defer

# -- blocks in a test -------------------------------------------------------


def test_the_tests_transaction_is_not_open(in_case, shop, ran):
    """Outside every block of its own a test is in no transaction (AC9)."""

    def test(_case):
        with DeferScope():
            shop.write("a")
            call = defer(ran.append, 1)
        assert call.state == "done"
        assert call.outcome.committed is None

    in_case(test)
    assert ran == [1]


def test_a_block_plays_the_transactions_part(in_case, shop, ran, drained):
    """Its calls wait for its end, which is a commit as far as they can tell (AC9)."""

    def test(_case):
        with shop.atomic():
            with DeferScope(), shop.atomic():
                shop.write("a")
                call = defer(ran.append, 1)
            assert call.state == "pending"
        drained()
        assert call.state == "done"
        assert call.outcome.committed is True

    in_case(test)
    assert ran == [1]


def test_a_block_that_is_rolled_back(in_case, shop, ran):
    """Drops its calls, at once and for good (AC9, C2)."""

    def test(_case):
        with DeferScope(), suppress(NoError), shop.atomic():
            call = defer(ran.append, 1)
            raise NoError
        assert dropped(call, shop)

    in_case(test)


def test_savepoints_in_the_block(in_case, shop, ran):
    """Are what they are elsewhere (AC5, AC9)."""

    def test(_case):
        with DeferScope(), shop.atomic():
            defer(ran.append, 1)
            with suppress(NoError), shop.atomic():
                with shop.atomic():
                    first = defer(ran.append, 2)
                second = defer(ran.append, 3)
                raise NoError
            with shop.atomic():
                defer(ran.append, 4)
            defer(ran.append, 5)
        assert ran == [1, 4, 5]
        assert dropped(first, shop)
        assert dropped(second, shop)

    in_case(test)


def test_one_block_after_the_other(in_case, shop, ran):
    """Each is a transaction of its own (AC9)."""

    @shop.atomic()
    def order(number, fails):
        defer(ran.append, number)
        if fails:
            raise NoError

    def test(_case):
        with DeferScope():
            order(1, fails=False)
            with suppress(NoError):
                order(2, fails=True)
            order(3, fails=False)
            defer(ran.append, 4)

    in_case(test)
    assert ran == [1, 3, 4]


@pytest.mark.parametrize("fails", [False, True])
def test_a_block_without_a_savepoint(fails, run_in, shop, ran):
    """The outermost may be one; its error dooms the test's own transaction (AC9)."""

    def test(_case):
        with DeferScope(), suppress(NoError), shop.atomic(savepoint=False):
            call = defer(ran.append, 1)
            if fails:
                raise NoError
        assert shop.connection.execute_wrappers == []
        assert dropped(call, shop) is fails

    run_in(TestCase, test, shop)
    assert ran == ([] if fails else [1])


def test_durable_blocks(in_case, shop, ran):
    """Django allows them in a test, and they end as elsewhere (AC9)."""

    def test(_case):
        with DeferScope(), shop.atomic(durable=True):
            defer(ran.append, 1)
        assert ran == [1]

    in_case(test)


def test_two_databases(in_case, shop, other, ran):
    """Both have a transaction of the test's, and both blocks count (A5, AC9)."""

    def test(_case):
        with DeferScope():
            with suppress(NoError), shop.atomic():
                with other.atomic():
                    call = defer(ran.append, 1)
                raise NoError
            with shop.atomic(), other.atomic():
                defer(ran.append, 2)
        assert dropped(call, shop)
        assert ran == [2]

    in_case(test, other)


def test_the_class_has_a_transaction_too(run_in, shop, ran):
    """`setUpTestData` runs in that of the class alone (AC9)."""

    class Case(TestCase):
        @classmethod
        def setUpTestData(cls):
            with DeferScope():
                with shop.atomic():
                    defer(ran.append, 1)
                with suppress(NoError), shop.atomic():
                    cls.call = defer(ran.append, 2)
                    raise NoError

    run_in(Case, lambda case: None, shop)
    assert ran == [1]


def test_a_test_that_commits(run_in, shop, ran):
    """A `TransactionTestCase` has no transaction of its own (AC9)."""

    def test(_case):
        with DeferScope():
            with shop.atomic():
                shop.write("a")
                defer(ran.append, 1)
            with suppress(NoError), shop.atomic():
                call = defer(ran.append, 2)
                raise NoError
        assert dropped(call, shop)

    run_in(TransactionTestCase, test, shop)
    assert ran == [1]


# -- what Django's own helpers see ------------------------------------------


@pytest.mark.parametrize("execute", [True, False])
def test_hooks_of_users_are_counted_alone(execute, in_case, shop, ran):
    """`captureOnCommitCallbacks` sees nothing of Postlude's (G1)."""

    def hook():
        ran.append("hook")

    def test(case):
        alias = shop.alias
        with (
            case.captureOnCommitCallbacks(using=alias, execute=execute) as hooks,
            DeferScope(),
            shop.atomic(),
        ):
            defer(ran.append, "call")
            transaction.on_commit(hook, using=alias)
        assert hooks == [hook]
        with DeferScope(), shop.atomic():
            defer(ran.append, "call")
            with case.captureOnCommitCallbacks(using=alias, execute=execute) as hooks:
                defer(ran.append, "call")
                transaction.on_commit(hook, using=alias)
            assert hooks == [hook]
        shop.connection.run_on_commit.clear()

    in_case(test)
    hooks = ["hook"] if execute else []
    assert ran == ["call", *hooks, *hooks, "call", "call"]


def test_queries_of_users_are_watched_alone(in_case, shop, ran):
    """A wrapper of a user's is taken away by himself, and sees each query once (G1)."""
    seen = []

    def note(execute, sql, params, many, context):
        seen.append(sql)
        return execute(sql, params, many, context)

    def test(_case):
        with DeferScope():
            with shop.atomic():
                with shop.connection.execute_wrapper(note):
                    defer(ran.append, 1)
                    shop.titles()
                assert len(shop.connection.execute_wrappers) == 1
                shop.titles()
            assert shop.connection.execute_wrappers == []

    in_case(test)
    assert len(seen) == 1


def test_a_look_at_a_block_that_is_being_left(in_case, shop, ran):
    """Another thread may look at any moment, also before the rollback is done (AC9)."""

    def look(execute, sql, params, many, context):
        if sql.startswith("ROLLBACK"):
            assert call._gates[0].state == "closed"
            call._gates[0].poll()
        return execute(sql, params, many, context)

    def test(_case):
        nonlocal call
        with (
            DeferScope(),
            shop.connection.execute_wrapper(look),
            suppress(NoError),
            shop.atomic(),
        ):
            call = defer(ran.append, 1)
            raise NoError
        assert dropped(call, shop)

    call = None
    in_case(test)
