"""The after-commit cases of Rails, after_commit_everywhere, Spring and Symfony.

Each case by its number in the research: kept, or answered by a comment where ours
differs. Here they are asked of the port itself, `postlude.transaction()`; the tests of
each library, beside this file, ask the same of that library's own transactions.
"""

import re
import threading
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

import postlude
from postlude import DeferScope, NoScopeWarning, configure, defer, transaction
from postlude.exceptions import SettingsError
from postlude.instrumentation import install, uninstall

PATIENCE = 10
CASES = [
    f"{source}{number}"
    for source, last in {"A": 12, "AC": 11, "S": 11, "D": 4}.items()
    for number in range(1, last + 1)
]


def test_each_case_is_here():
    """Kept in a docstring, or answered in a comment that begins with its number."""
    text = Path(__file__).read_text()
    said = " ".join(re.findall(r'(?:"""|# |[.,] )([ASD]C?\d+, .*|[ASD]C?\d+: )', text))
    assert [case for case in CASES if not re.search(rf"\b{case}\b", said)] == []


def test_the_tests_that_are_named_are_there():
    """A comment that refers to another file's test is not left behind by it."""
    folder = Path(__file__).parent
    comments = re.findall(r"^# .*", Path(__file__).read_text(), re.MULTILINE)
    tests = "\n".join(path.read_text() for path in folder.rglob("test_*.py"))
    for name in re.findall(r"\b(test_\w+)\b(?!\.py)", " ".join(comments)):
        assert f"def {name}(" in tests


@pytest.fixture
def ran():
    """What ran, in order."""
    return []


class UndoError(Exception):
    """What rolls a block back."""


# -- Rails: enqueue_after_transaction_commit --------------------------------


def test_a1_without_a_transaction(ran):
    """A1: with no transaction open, only the unit's end is waited for."""
    with DeferScope():
        defer(ran.append, 1)
        assert ran == []  # ours has the response's gate too
    assert ran == [1]


def test_a2_after_commit(ran):
    """A2: with a transaction open, it runs after the commit and not before."""
    with transaction():
        with DeferScope():
            defer(ran.append, 1)
        assert ran == []
    postlude.drain(PATIENCE)
    assert ran == [1]


def test_a3_in_a_savepoint(ran):
    """A3: inside a savepoint, it waits for the outermost commit."""
    with transaction() as outer:
        with DeferScope(), outer.savepoint() as middle, middle.savepoint():
            defer(ran.append, 1)
        assert ran == []
    postlude.drain(PATIENCE)
    assert ran == [1]


def test_a4_rollback(ran):
    """A4: after a rollback it never runs."""
    with DeferScope(), suppress(UndoError), transaction():
        call = defer(ran.append, 1)
        raise UndoError
    assert (ran, call.reason) == ([], "rollback")


def test_a5_two_databases(ran):
    """A5: inside transactions on two databases it runs once, after both commits."""
    with DeferScope(), transaction("one"):
        with transaction("two"):
            call = defer(ran.append, 1)
        assert call.state == "pending"
    assert ran == [1]


def test_a6_a_transaction_that_is_over_already(ran):
    """A6: a transaction that was rolled back before the call counts as none."""
    with DeferScope(), transaction() as over:
        over.rollback()
        call = defer(ran.append, 1)
    assert (ran, call.outcome.committed) == ([1], None)


def test_a7_the_handle_comes_at_once():
    """A7: `defer` gives its call back at once, whatever is open."""
    with DeferScope(), transaction():
        assert isinstance(defer(print), postlude.DeferredCall)


def test_a8_accepted_and_then_ended():
    """A8: the handle says pending first, and later how the call ended."""
    with DeferScope():
        with transaction():
            good, bad = defer(str), defer(int, "x")
            assert (good.state, bad.state) == ("pending", "pending")
        assert (good.state, bad.state) == ("pending", "pending")
    assert (good.state, bad.state) == ("done", "failed")


def test_a9_hooks_of_the_start_come_after_the_commit(ran):
    """A9: instruments stand around the real start, after the commit."""

    class Instrument:
        def around(self, _call):
            ran.append("around")
            return nullcontext()

        def ended(self, _record):
            ran.append("ended")

    instrument = Instrument()
    install(instrument)
    try:
        with DeferScope():
            with transaction():
                defer(ran.append, "call")
            ran.append("committed")
    finally:
        uninstall(instrument)
    assert ran == ["committed", "around", "call", "ended"]


def test_a10_each_item_of_a_bulk_decides_for_itself(ran):
    """A10: of a group, what opted out does not wait for what did not."""
    with DeferScope():
        open_one = transaction().__enter__()
        waits, free = postlude.defer_all(lambda: ran.append(1), lambda: ran.append(2))
        free.after_commit(False)
    assert ran == [2]
    open_one.commit()
    postlude.drain(PATIENCE)
    assert (ran, waits.state) == ([2, 1], "done")


# A11, with no ORM installed: all of this file runs so, and nothing loads a library:
# sqlalchemy/test_installing.py (test_nobody_else_loads_sqlalchemy).

# A12, a base setting reaches existing subclasses: ours has no class to set it on. What
# corresponds is that `install()` covers subclasses made before and after it: the tests
# "install_twice" and "subclasses" of each library beside this file.


# -- after_commit_everywhere ------------------------------------------------


def test_ac1_in_the_order_of_definition(ran):
    """AC1: what one transaction let go runs in the order of registration."""
    with DeferScope(), transaction() as outer:
        defer(ran.append, 1)
        with outer.savepoint():
            defer(ran.append, 2)
        defer(ran.append, 3)
    assert ran == [1, 2, 3]


# AC2, prepending: ours has no way to the front of the line, on purpose: D1 says first
# in, first out, and who wants another order defers in another order.


def test_ac3_an_error_stays_with_its_call(ran):
    """AC3: theirs propagates; ours is recorded, and the next one runs (D2)."""
    with DeferScope(), transaction():
        bad = defer(int, "x")
        defer(ran.append, 2)
    assert (ran, bad.state) == ([2], "failed")
    assert len(postlude.failure_store().list()) == 1


def test_ac4_without_a_unit_the_choice_is_explicit(ran):
    """AC4: execute and warn by default, raise if strict; another choice is an error."""
    with pytest.warns(NoScopeWarning):
        defer(ran.append, 1)
    assert ran == [1]
    configure(strict=True)
    with pytest.raises(postlude.NoScopeError):
        defer(ran.append, 2)
    with pytest.raises(SettingsError):
        configure(strict="perhaps")
    assert ran == [1]


def test_ac5_a_real_savepoint_drops_its_own(ran):
    """AC5: rolling a savepoint back drops what was deferred inside it only."""
    with DeferScope(), transaction() as outer:
        defer(ran.append, "outer")
        with suppress(UndoError), outer.savepoint():
            defer(ran.append, "inner")
            raise UndoError
    assert ran == ["outer"]


def test_ac6_a_joined_block_is_no_savepoint(ran):
    """AC6: code that merely runs inside, and whose error is caught, drops nothing."""

    def joined():
        defer(ran.append, "joined")
        raise UndoError

    with DeferScope(), transaction(), suppress(UndoError):
        joined()
    assert ran == ["joined"]


def test_ac7_only_its_own_database(ran):
    """AC7: what happens on another database later is irrelevant."""
    with DeferScope():
        with transaction("one"):
            defer(ran.append, 1)
        with suppress(UndoError), transaction("two"):
            raise UndoError
    assert ran == [1]


# AC8, asking opens and leaks no connection: the port has none to open. Each library
# that has: "test_asking_opens_no_connection", "test_no_connection_is_opened".

# AC9, the transaction around a test does not count: django/test_test_cases.py, and for
# the recipe of SQLAlchemy's own documentation sqlalchemy/test_joining.py.


@pytest.mark.parametrize("whole", [True, False])
def test_ac10_after_rollback(whole, ran):
    """AC10: a call for the rollback alone is `.always()` with a condition."""
    with (
        DeferScope(),
        suppress(UndoError),
        transaction() as outer,
        nullcontext() if whole else outer.savepoint(),
    ):
        defer(ran.append, 1).when(lambda outcome: outcome.committed is False)
        raise UndoError
    with DeferScope(), transaction():
        defer(ran.append, 2).when(lambda outcome: outcome.committed is False)
    assert ran == [1]


def test_ac11_after_rollback_without_a_transaction(ran):
    """AC11: theirs raises; ours asks the condition, and `committed` is None."""
    with DeferScope():
        defer(ran.append, 1).when(lambda outcome: outcome.committed is False)
        defer(ran.append, 2).when(lambda outcome: outcome.committed is None)
    assert ran == [2]


# -- Spring -----------------------------------------------------------------


@pytest.mark.parametrize("fails", [True, False])
def test_s1_s2_s3_phases(fails, ran):
    """S1, S2, S3: after commit, after rollback, after completion: each when it says."""
    with DeferScope(), suppress(UndoError), transaction():
        defer(ran.append, "commit")
        defer(ran.append, "rollback").when(lambda outcome: outcome.committed is False)
        defer(ran.append, "completion").always()
        if fails:
            raise UndoError
    assert ran == (["rollback", "completion"] if fails else ["commit", "completion"])


# S4, before commit: code of users that must run inside the transaction stands before
# its end; no `defer` is needed. What a queue writes there is `before_commit()`: the
# files test_before_commit.py. S5, a failing one cancels the commit and so our calls:
# with a real hook in sqlalchemy/test_sessions.py (test_a_hook_that_forbids_the_commit)
# and in zope/test_zope.py.


def test_s6_no_transaction(ran):
    """S6: theirs drops unless told otherwise; ours runs: no gate is no obstacle."""
    with DeferScope():
        call = defer(ran.append, 1)
    assert (ran, call.outcome.committed) == ([1], None)


def test_s7_suspended_and_joined(ran):
    """S7: what runs in another thread's unit is outside; what is called is inside."""

    def elsewhere():
        with DeferScope():
            defer(ran.append, "suspended")

    with DeferScope(), suppress(UndoError), transaction():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(PATIENCE)
        defer(ran.append, "joined")
        raise UndoError
    assert ran == ["suspended"]


def test_s8_a_condition_filters(ran):
    """S8: `.when()` decides; ours asks when the outcome is known, not before."""
    with DeferScope(), transaction():
        call = defer(ran.append, 1).when(lambda outcome: False)
    assert (ran, call.reason) == ([], "outcome")


def test_s9_writes_of_a_call_are_committed_or_refused():
    """S9: a call that leaves its own transaction open fails loudly."""

    def forgets():
        postlude.transactions.begin("orders.db").wrote = True

    with DeferScope(), transaction():
        call = defer(forgets)
    assert isinstance(call.exception, postlude.UncommittedError)


def test_s10_a_commit_that_fails(ran):
    """S10: the block raises at its commit: that is a rollback."""
    with DeferScope(), suppress(UndoError), transaction():
        defer(ran.append, 1)
        raise UndoError  # where the database's own block, inside this one, ends
    assert ran == []


def test_s11_a_release_that_fails(ran):
    """S11: the same for a savepoint, which drops its own."""
    with DeferScope(), transaction() as outer:
        with suppress(UndoError), outer.savepoint():
            defer(ran.append, 1)
            raise UndoError
        defer(ran.append, 2)
    assert ran == [2]


# -- Symfony ----------------------------------------------------------------


def test_d1_after_the_handler_in_order(ran):
    """D1: what is deferred runs after the handler, in order."""
    with DeferScope():
        defer(ran.append, 1)
        defer(ran.append, 2)
        ran.append("handler")
    assert ran == ["handler", 1, 2]


def test_d2_one_raising_does_not_stop_the_next(ran):
    """D2: theirs raises all errors together; ours has nobody to raise them to."""
    with DeferScope():
        for what in ("x", "1", "y"):
            defer(lambda what=what: ran.append(int(what)))
    assert ran == [1]
    assert len(postlude.failure_store().list()) == 2


def test_d3_chains_keep_their_order(ran):
    """D3: with errors in the middle, what calls defer themselves comes in turn (A7)."""

    def chain(name):
        ran.append(name)
        if len(name) < 3:
            defer(chain, name + "a")
            defer(chain, name + "b")
            raise UndoError

    with DeferScope():
        defer(chain, "x")
        defer(ran.append, "last")
    assert ran == ["x", "last", "xa", "xb", "xaa", "xab", "xba", "xbb"]


def test_d4_the_handler_raises(ran):
    """D4: what a failed handler had deferred is dropped (C1)."""
    with suppress(UndoError), DeferScope():
        call = defer(ran.append, 1)
        raise UndoError
    assert (ran, call.reason) == ([], "outcome")
