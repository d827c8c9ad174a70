"""The gates of one connection, for drivers that have no object for each (B3, C2)."""

import gc

import pytest

from postlude import DeferScope, UncommittedError, defer
from postlude.transactions._stack import Stack


@pytest.fixture
def stack():
    """A connection without a transaction."""
    return Stack()


@pytest.fixture
def ran():
    """What ran, in order."""
    return []


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ("begin DEFER commit", True),
        ("begin DEFER rollback", False),
        ("begin DEFER commit!", False),
        ("begin! DEFER rollback", True),
        ("begin begin DEFER rollback", False),
        ("DEFER begin rollback", True),
        ("begin savepoint:a DEFER release:a commit", True),
        ("begin savepoint:a DEFER release:a rollback", False),
        ("begin savepoint:a DEFER commit", True),
        ("begin savepoint:a DEFER rollback_to:a commit", False),
        ("begin savepoint:a DEFER release:a! commit", False),
        ("begin savepoint:a! DEFER rollback_to:a commit", True),
        ("begin DEFER savepoint:a rollback_to:a commit", True),
        ("begin savepoint:a savepoint:b DEFER rollback_to:a commit", False),
        ("begin savepoint:a savepoint:b DEFER release:a commit", True),
        ("begin savepoint:a savepoint:a DEFER rollback_to:a commit", False),
        ("begin savepoint:a DEFER savepoint:a rollback_to:a commit", True),
        ("begin DEFER rollback_to:unknown release:unknown commit", True),
        ("savepoint:a DEFER rollback_to:a", True),
    ],
)
def test_what_statements_do(stack, ran, steps, kept):
    """`!` is a statement that failed (C2, AC5, S10, S11)."""
    with DeferScope():
        for step in steps.split():
            if step == "DEFER":
                defer(ran.append, "call")
            else:
                word, _, name = step.removesuffix("!").partition(":")
                stack.follow(word, name, "db", failed=step.endswith("!"))
    assert ran == ["call"] * kept


@pytest.mark.parametrize(
    ("wrote", "end"),
    [(wrote, end) for wrote in ("", "root", "inner") for end in ("end", "begin", "gc")],
)
def test_an_end_without_a_word(ran, wrote, end, drained):
    """Dropped if something wrote, at any depth; else of no matter (C2)."""
    stack = Stack()
    with DeferScope():
        stack.begin("db")
        if wrote == "root":
            stack.wrote()
        call = defer(ran.append, "call")
        stack.savepoint("a")
        if wrote == "inner":
            stack.wrote()
        if end == "end":
            stack.end()
        elif end == "begin":
            stack.begin("db")  # of a connection that has the address of a dead one
            stack.commit()
        else:
            del stack
            gc.collect()
    drained()
    assert call.state == ("dropped" if wrote else "done")


def test_keys(stack):
    """What is open is known by its key, innermost last (B3)."""
    assert (stack.top, "a" in stack, bool(stack)) == (None, False, False)
    stack.begin("db")
    stack.savepoint("a")
    assert (stack.top, "a" in stack, bool(stack)) == ("a", True, True)
    stack.drop()
    assert not stack


def test_a_call_whose_connection_is_given_back_fails():
    """What it wrote was not committed: it would be lost in silence (S9)."""

    def work(wrote):
        stack = Stack()
        stack.begin("db")
        if wrote:
            stack.wrote()
        stack.end()

    with DeferScope():
        reads, writes = defer(work, False), defer(work, True)
    assert (reads.state, writes.state) == ("done", "failed")
    assert isinstance(writes.exception, UncommittedError)
