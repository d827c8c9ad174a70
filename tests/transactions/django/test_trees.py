"""B3 and C2 with Django: random trees of blocks, errors and calls against a model.

`TEST_TREES=10000` tries that many of each kind.
"""

import os
from contextlib import contextmanager, suppress
from itertools import product

import pytest
from django.db import transaction
from django.db.transaction import TransactionManagementError
from django.test import TestCase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops import Book, NoError

import postlude
from postlude import DeferScope, defer
from postlude.transactions._gate import drop_orphans

TREES = int(os.environ.get("TEST_TREES", "200"))

pytestmark = pytest.mark.timeout(60 + TREES)

# -- trees ------------------------------------------------------------------

DATABASES = ["one", "two"]
OPTIONS = ["plain", "plain", "plain", "joined", "durable"]
LEAVES = [
    *[("defer",)] * 10,
    ("raise",),
    *product(["query"], DATABASES),
    *product(["set_rollback"], DATABASES, [True, False]),
]
BLOCKS = [*product(["block"], DATABASES, OPTIONS, [True, True, False])]
OPENINGS = [("unit",), *BLOCKS]
END = ("end",)
tokens = st.sampled_from([*LEAVES * 2, ("unit",), *BLOCKS, *[END] * 32])


def grow(tokens):
    """Make a tree of tokens that open, end, and are leaves.

    Drawn flat: Hypothesis takes ten times as long to draw what is recursive.
    """
    tree = []
    open_ones = [tree]
    for token in tokens:
        if token in OPENINGS:
            body = []
            open_ones[-1].append((*token, body))
            open_ones.append(body)
        elif token != END:
            open_ones[-1].append(token)
        elif len(open_ones) > 1:
            open_ones.pop()
    return tree


trees = st.lists(tokens, min_size=15, max_size=60).map(grow)


def walk(world, nodes):
    """Do what a tree says, in the real world or in the model."""
    for kind, *rest in nodes:
        if kind == "defer":
            world.defer()
        elif kind == "raise":
            raise NoError
        elif kind == "query":
            world.query(*rest)
        elif kind == "set_rollback":
            world.set_rollback(*rest)
        elif kind == "unit":
            with world.unit(), suppress(*ERRORS):
                walk(world, rest[0])
        else:
            database, option, caught, body = rest
            with suppress(*ERRORS if caught else ()):  # noqa: SIM117 - in this order
                with world.block(database, option):
                    walk(world, body)


ERRORS = NoError, TransactionManagementError, RuntimeError


# -- the model --------------------------------------------------------------


class Frame:
    """A block that is open, and the calls that its rollback takes along."""

    def __init__(self, undoes):
        self.undoes = undoes
        self.calls = []


class Model:
    """What Django says its blocks do."""

    def __init__(self):
        self.frames = {"one": [], "two": []}
        self.doomed = {"one": False, "two": False}
        self.count = 0
        self.lost = set()

    @property
    def kept(self):
        """The calls that must run."""
        return set(range(self.count)) - self.lost

    def defer(self):
        """Have a call go with the innermost block of each database."""
        for frames in self.frames.values():
            if frames:
                frames[-1].calls.append(self.count)
        self.count += 1

    def query(self, database):
        """Refuse queries in a transaction that has to be rolled back."""
        if self.doomed[database]:
            raise TransactionManagementError

    def set_rollback(self, database, doomed):
        """Doom the innermost block that can be undone, or call it off."""
        if self.frames[database]:
            self.doomed[database] = doomed

    @contextmanager
    def unit(self):
        """Change nothing."""
        yield

    @contextmanager
    def block(self, database, option):
        """Keep what is in it, lose it, or leave it to the block around it."""
        frames = self.frames[database]
        if option == "durable" and frames:
            raise RuntimeError
        undoes = not frames or (option != "joined" and not self.doomed[database])
        frames.append(Frame(undoes))
        failed = True
        try:
            yield
            failed = False
        finally:
            failed = failed or self.doomed[database]
            frame = frames.pop()
            self.doomed[database] = failed and not frame.undoes
            if failed and frame.undoes:
                self.lost.update(frame.calls)
            elif frames:
                frames[-1].calls += frame.calls


# -- the real world ---------------------------------------------------------


class Real:
    """Django, with calls that note that they ran, and rows that should stay if so."""

    def __init__(self, shops):
        self.shops = shops
        self.ran = []
        self.calls = []
        self.rows = {}

    def defer(self):
        """Defer a call, and write its number to each database that has a block."""
        number = len(self.calls)
        self.calls.append(defer(self.ran.append, number))
        shops = [shop for shop in self.shops.values() if self.is_inside(shop)]
        if shops and not any(shop.connection.needs_rollback for shop in shops):
            self.rows[number] = shops
            for shop in shops:
                shop.write(f"{number}")

    def query(self, database):
        """Read."""
        self.shops[database].titles()

    def set_rollback(self, database, doomed):
        """Say so to Django, where it allows it."""
        shop = self.shops[database]
        if self.is_inside(shop):
            transaction.set_rollback(doomed, using=shop.alias)

    def unit(self):
        """Make a unit."""
        return DeferScope()

    def block(self, database, option):
        """Make a block. In a test the outermost must be a savepoint to be undone."""
        shop = self.shops[database]
        joined = option == "joined" and self.is_inside(shop)
        return shop.atomic(savepoint=not joined, durable=option == "durable")

    @staticmethod
    def is_inside(shop):
        """Tell whether a block other than those of the test itself is open."""
        blocks = shop.connection.atomic_blocks
        return any(not block._from_testcase for block in blocks)

    def stayed(self):
        """Give the calls all of whose rows are there."""
        titles = {shop: set(shop.titles()) for shop in self.shops.values()}
        return {
            number
            for number, shops in self.rows.items()
            if all(f"{number}" in titles[shop] for shop in shops)
        }


# -- both -------------------------------------------------------------------


def check(tree, shops):
    """Do what the tree says twice, and compare which calls ran."""
    model, real = Model(), Real(shops)
    for world in (model, real):
        with world.unit(), suppress(*ERRORS):
            walk(world, tree)
    drop_orphans()  # as the watch does within a second
    postlude.drain()
    assert len(real.calls) == model.count
    assert set(real.ran) == model.kept
    assert len(real.ran) == len(model.kept)
    for number, call in enumerate(real.calls):
        ended = (call.state, call.reason)
        wanted = ("done", None) if number in model.kept else ("dropped", "rollback")
        assert ended == wanted
    assert real.stayed() == model.kept & set(real.rows)
    for shop in shops.values():
        assert shop.connection.run_on_commit == []
        assert shop.connection.execute_wrappers == []
        Book.objects.using(shop.alias).all().delete()


many = settings(
    max_examples=TREES, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def two(add_shop):
    """Two empty databases in memory."""
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    return {name: add_shop(f"trees_{name}", **sqlite) for name in ("one", "two")}


@many
@given(tree=trees)
def test_trees(tree, two):
    """The calls that run are those whose work was committed (B3, C2)."""
    check(tree, two)


def test_trees_in_a_test(two, run_in):
    """Inside the transaction of a test the same calls run (AC9)."""

    @many
    @given(tree=trees)
    def test(tree):
        check(tree, two)

    run_in(TestCase, lambda case: test(), *two.values())
