"""B3 and C2 with the `transaction` package, as Zope and pyramid_tm use it."""

import gc
import threading
from contextlib import suppress

import pytest
import transaction
from transaction.interfaces import DoomedTransaction, TransientError

from postlude import DeferScope, UncommittedError, defer
from postlude.transactions import zope as gates

gates.install()


class Resource:
    """A resource manager; it fails where it is told to, and notes what it did."""

    def __init__(self, fails=""):
        self.fails = fails
        self.done = []

    def join(self, manager=transaction.manager):
        """Take part in the current transaction."""
        manager.get().join(self)
        return self

    def sortKey(self):  # noqa: N802 - the package's name
        """Stand where it makes no difference."""
        return "resource"

    def _do(self, what):
        self.done.append(what)
        if what == self.fails:
            raise ValueError(what)

    def abort(self, _txn):
        """Go back to where the transaction began."""
        self._do("abort")

    def tpc_begin(self, _txn):
        """Begin the two phases."""
        self._do("begin")

    def commit(self, _txn):
        """Save."""
        self._do("commit")

    def tpc_vote(self, _txn):
        """Be the one who can still say no."""
        self._do("vote")

    def tpc_finish(self, _txn):
        """Make it last."""
        self._do("finish")

    def tpc_abort(self, _txn):
        """Leave the two phases."""
        self._do("tpc_abort")

    def savepoint(self):
        """Make a savepoint."""
        return self

    def rollback(self):
        """Go back to it."""
        self._do("rollback")


@pytest.fixture
def ran():
    """What ran, in order; and no transaction is left in this thread."""
    yield []
    transaction.abort()


def test_a_call_runs_after_the_commit(ran):
    """`with transaction.manager:` as pyramid_tm and scripts have it (B3)."""
    with DeferScope():
        with transaction.manager:
            resource = Resource().join()
            defer(ran.append, "mail")
        assert ran == []
    assert ran == ["mail"]
    assert resource.done == ["begin", "commit", "vote", "finish"]


def test_an_exception_drops(ran):
    """It aborts the transaction, and so the calls (C2, A4)."""
    with DeferScope():
        with suppress(ValueError), transaction.manager:
            call = defer(ran.append, "no")
            defer(ran.append, "at once").after_commit(False)
            defer(ran.append, "always").always()
            raise ValueError
        defer(ran.append, "after")
    assert ran == ["at once", "always", "after"]
    assert (call.reason, call.rolled_back) == ("rollback", gates.NAME)


@pytest.mark.parametrize("phase", ["begin", "commit", "vote", "finish"])
def test_a_commit_that_fails_in_any_phase_drops(ran, phase):
    """It takes the path of a rollback (S10)."""
    with DeferScope():
        transaction.begin()
        Resource(fails=phase).join()
        call = defer(ran.append, "no")
        with pytest.raises(ValueError, match=phase):
            transaction.commit()
        transaction.abort()
    assert call.reason == "rollback"


def test_a_failing_hook_or_abort_drops(ran):
    """What goes wrong before the commit or in the abort saves no call (S5)."""
    with DeferScope():
        transaction.begin()
        transaction.get().addBeforeCommitHook(lambda: 1 / 0)
        first = defer(ran.append, "no")
        with pytest.raises(ZeroDivisionError):
            transaction.commit()
        transaction.begin()
        Resource(fails="abort").join()
        second = defer(ran.append, "no")
        with pytest.raises(ValueError, match="abort"):
            transaction.abort()
    assert (first.reason, second.reason) == ("rollback", "rollback")


def test_a_doomed_transaction_drops(ran):
    """As pyramid_tm's commit veto does it (C2)."""
    with DeferScope():
        transaction.begin()
        transaction.doom()
        call = defer(ran.append, "no")
        with pytest.raises(DoomedTransaction):
            transaction.commit()
        transaction.abort()
    assert call.reason == "rollback"


def test_a_rolled_back_savepoint_drops_its_own_only(ran):
    """And can be rolled back to again (C2, AC5)."""
    with DeferScope(), transaction.manager:
        Resource().join()
        defer(ran.append, "before")
        savepoint = transaction.savepoint()
        defer(ran.append, "no")
        transaction.savepoint()
        defer(ran.append, "nor this")
        savepoint.rollback()
        defer(ran.append, "nor that")
        savepoint.rollback()
        defer(ran.append, "after")
    assert ran == ["before", "after"]


def test_a_savepoint_before_any_resource(ran):
    """Who makes one has a transaction (B3)."""
    with DeferScope():
        savepoint = transaction.savepoint()
        defer(ran.append, "no")
        Resource().join()
        savepoint.rollback()
        defer(ran.append, "yes")
        assert ran == []
        transaction.commit()
    assert ran == ["yes"]


def test_savepoints_by_the_thousand(ran):
    """Those that nobody kept are over; imports make them to save memory (C2)."""
    with DeferScope(), transaction.manager:
        kept = transaction.savepoint(optimistic=True)
        for number in range(3000):
            transaction.savepoint(optimistic=True)
            if number == 2000:
                defer(ran.append, "inside")
        stack = gates._stacks[transaction.get()]
        assert len(stack._gates) == 3
        assert kept.valid
    assert ran == ["inside"]


def test_without_begin_it_begins_with_the_first_resource(ran):
    """And asking for the current transaction is no beginning (B3, S6)."""
    with DeferScope():
        transaction.get()
        free = defer(ran.append, "before")
        Resource().join()
        call = defer(ran.append, "no")
        transaction.abort()
    assert ran == ["before"]
    assert (free.state, call.reason) == ("done", "rollback")


def test_begin_aborts_what_is_left_over(ran):
    """As the package does (C2)."""
    with DeferScope():
        transaction.begin()
        call = defer(ran.append, "no")
        transaction.begin()
        defer(ran.append, "yes")
        transaction.commit()
    assert call.reason == "rollback"
    assert ran == ["yes"]


def test_attempts(ran):
    """What was deferred in an attempt goes with it (C2)."""
    numbers = iter(range(3))
    with DeferScope():
        for attempt in transaction.manager.attempts(3):
            with attempt:
                number = next(numbers)
                defer(ran.append, number)
                if number < 2:
                    raise TransientError
    assert ran == [2]


def test_an_explicit_manager_of_ones_own(ran):
    """As pyramid_tm gives each request (B3)."""
    manager = transaction.TransactionManager(explicit=True)
    with DeferScope():
        manager.begin()
        Resource().join(manager)
        transaction.begin()
        call = defer(ran.append, "both")
        transaction.commit()
        assert call._gates
        manager.commit()
    assert ran == ["both"]


def test_two_units_one_after_another(ran):
    """The end of one says nothing of the other (B3)."""
    with DeferScope():
        transaction.begin()
        defer(ran.append, "first")
        transaction.abort()
    with DeferScope(), transaction.manager:
        defer(ran.append, "second")
    assert ran == ["second"]


def test_a_commit_after_the_units_end(ran, drained):
    """Response first, commit second: pyramid_tm outside of us (B3)."""
    with DeferScope():
        transaction.begin()
        call = defer(ran.append, "late")
    assert call.state == "pending"
    transaction.commit()
    drained()
    assert ran == ["late"]


def test_threads_have_a_transaction_each(ran):
    """`transaction.manager` is one per thread (B3)."""
    deferred, ended = threading.Event(), threading.Event()

    def bad():
        with DeferScope():
            transaction.begin()
            defer(ran.append, "bad")
            deferred.set()
            ended.wait(10)
            transaction.abort()

    thread = threading.Thread(target=bad)
    thread.start()
    assert deferred.wait(10)
    with DeferScope(), transaction.manager:
        defer(ran.append, "good")
    ended.set()
    thread.join()
    assert ran == ["good"]


@pytest.mark.parametrize("joined", [True, False])
def test_a_transaction_that_nobody_ends(ran, joined, drained):
    """Its manager is gone: dropped if a resource took part, else of no matter (C2)."""
    with DeferScope():
        manager = transaction.TransactionManager()
        manager.begin()
        if joined:
            Resource().join(manager)
        call = defer(ran.append, "read")
        del manager
        gc.collect()
    drained()
    assert call.state == ("dropped" if joined else "done")


def test_a_call_that_leaves_its_own_transaction_open_fails(ran, logged):
    """Never silently lost in a finished transaction (S9)."""

    def work():
        Resource().join()

    with DeferScope():
        call = defer(work)
    assert isinstance(call.exception, UncommittedError)


def test_resources_see_no_difference(ran):
    """No abort after a commit, as the package's own hooks would bring (B2)."""
    resource = Resource()
    with DeferScope():
        transaction.begin()
        resource.join()
        defer(ran.append, "x")
        transaction.abort()
    assert resource.done == ["abort"]


def test_install_twice():
    """A second time changes nothing (A12)."""
    before = transaction.Transaction.commit
    gates.install()
    assert transaction.Transaction.commit is before
