"""Gate.before_commit with Django: statements run at once, in the block of the call."""

from contextlib import suppress

import pytest
from books.models import Book
from django.db import IntegrityError
from django.test import TestCase
from shops import NoError

from postlude import DeferScope, StatementError, defer
from postlude.transactions import before_commit

INSERT = "INSERT INTO books_book (title) VALUES (:title)"


def write(title):
    """Make a callback that adds a book, with a colon and a percent sign around."""

    def callback(execute):
        assert execute(r"SELECT '\:no', '10%', :yes", {"yes": 1}) == [(":no", "10%", 1)]
        execute(INSERT, {"title": title})

    return callback


def say():
    """Stand for a call."""


def test_it_shares_the_fate_of_the_block(shop):
    """Django tells nobody of a commit to come, so it is called at once (F2)."""
    with DeferScope(), shop.atomic():
        deferred = defer(say)
        assert all(gate.executes_now for gate in deferred._gates)
        assert before_commit(deferred, write("ours"))
        assert shop.titles() == ["ours"]
        with suppress(NoError), shop.atomic():
            before_commit(defer(say), write("gone"))
            with shop.atomic():
                before_commit(defer(say), write("released into it"))
            raise NoError
        with shop.atomic():
            before_commit(defer(say), write("kept"))
    assert shop.titles() == ["ours", "kept"]
    with DeferScope(), suppress(NoError), shop.atomic():
        before_commit(defer(say), write("never"))
        raise NoError
    assert shop.titles() == ["ours", "kept"]


def test_what_it_raises_is_raised_at_the_call(shop):
    """There it can still make the block roll back (F2)."""

    def twice(execute):
        execute("INSERT INTO books_book (id, title) VALUES (:id, 'x')", {"id": 1})
        execute("INSERT INTO books_book (id, title) VALUES (:id, 'x')", {"id": 1})

    with DeferScope(), pytest.raises(IntegrityError), shop.atomic():
        before_commit(defer(say), twice)
    assert shop.titles() == []


@pytest.mark.parametrize("where", ["inner", "outer", "after"])
def test_only_in_the_block_of_the_call(shop, where):
    """Elsewhere the statement would have another fate than its call (F2, F4)."""
    with DeferScope():
        with shop.atomic():
            deferred = defer(say)
            if where == "outer":
                with shop.atomic():
                    deferred = defer(say)
            elif where == "inner":
                with shop.atomic(), pytest.raises(StatementError, match="another one"):
                    before_commit(deferred, write("no"))
            if where == "outer":
                with pytest.raises(StatementError, match="another one"):
                    before_commit(deferred, write("no"))
        if where == "after":
            gates = deferred._gates or ()
            for gate in gates:
                with pytest.raises(StatementError, match="another one"):
                    gate.before_commit(write("no"))
    assert shop.titles() == []


def test_inside_a_test_case(shop, in_case):
    """The test's own transaction is no obstacle (G1)."""

    def test(_case: TestCase):
        with DeferScope(), shop.atomic():
            before_commit(defer(say), write("ours"))
        assert list(Book.objects.using(shop.alias).values_list("title")) == [("ours",)]

    in_case(test)
