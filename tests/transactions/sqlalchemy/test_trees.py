"""B3 and C2 in random trees of transactions: a model says which calls must run.

Two sessions and a connection, on a database each, begin, write, read, nest savepoints,
fail and end, side by side, while a unit defers and ends before or after them. What runs
is compared with the model, what is stored with both.
"""

from contextlib import ExitStack
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orders import TREES, Base, Order, begin_for_real
from sqlalchemy import create_engine, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

import postlude
from postlude import DeferScope, defer

pytestmark = pytest.mark.timeout(60 + TREES)
TAKEN = 1
"""An order that is there from the beginning, so that a second one fails."""


# -- the model ----------------------------------------------------------------


class Call:
    """What the model knows of a call."""

    def __init__(self, rule, row):
        self.rule = rule
        self.row = row
        self.lost = False
        self.real = None

    @property
    def runs(self):
        """Whether it must have run in the end."""
        return self.rule != "plain" or not self.lost


class Frame:
    """A transaction or savepoint: who waits for it, and what is written in it."""

    def __init__(self):
        self.calls = []
        self.rows = []
        self.wrote = False

    def drop(self):
        """It was rolled back."""
        for call in self.calls:
            call.lost = True


class Model:
    """One session or connection: the frames that are open, the outermost first."""

    def __init__(self):
        self.frames = []
        self.stored = {TAKEN}
        self.dead = False

    def begin(self):
        """Begin, if that has not been done."""
        if not self.frames:
            self.frames.append(Frame())

    def savepoint(self):
        """Open a savepoint, and what must be around it."""
        self.begin()
        self.frames.append(Frame())

    def write(self, row=None):
        """Write a row, or only mean to."""
        self.begin()
        self.frames[-1].wrote = True
        if row is not None:
            self.frames[-1].rows.append(row)

    def release(self):
        """Release the innermost savepoint: all that is in it moves outwards."""
        frame = self.frames.pop()
        outer = self.frames[-1]
        outer.calls += frame.calls
        outer.rows += frame.rows
        outer.wrote = outer.wrote or frame.wrote

    def undo(self):
        """Roll back to the innermost savepoint."""
        self.frames.pop().drop()
        self.dead = False

    def close_savepoint(self):
        """End the innermost savepoint without a word."""
        if self.frames[-1].wrote:
            self.undo()
            self.frames[-1].wrote = True
        else:
            self.release()

    def commit(self):
        """Commit, with all savepoints still open."""
        self.stored.update(row for frame in self.frames for row in frame.rows)
        self.frames = []

    def rollback(self):
        """Roll back, with all savepoints still open."""
        for frame in self.frames:
            frame.drop()
        self.frames, self.dead = [], False

    def close(self):
        """End without a word: no matter, unless something was written."""
        if any(frame.wrote for frame in self.frames):
            self.rollback()
        self.frames, self.dead = [], False

    def fail(self):
        """Have a flush fail: SQLAlchemy rolls back what is innermost, at once."""
        self.begin()
        self.frames[-1].drop()
        self.frames[-1] = Frame()
        self.dead = True

    def wait(self, call):
        """Have a call wait for what is innermost and alive."""
        alive = self.frames[:-1] if self.dead else self.frames
        if alive:
            alive[-1].calls.append(call)


# -- the real thing -----------------------------------------------------------


SHARED = {
    "begin": "",
    "read": "",
    "write": "",
    "savepoint": "",
    "release": "in savepoint",
    "undo": "in savepoint, dead",
    "commit": "",
    "rollback": "dead",
    "close": "dead",
    "fail": "",
}
"""What may be done, and when: else SQLAlchemy would refuse it."""


class Owner:
    """What a session and a connection of a test have in common."""

    verbs = SHARED

    def __init__(self, engine):
        self.engine = engine
        with engine.begin() as connection:
            connection.execute(delete(Order))
            connection.execute(insert(Order).values(id=TAKEN, name="taken"))
        self.model = Model()
        self.savepoints = []
        self.real = self.make()

    def may(self, verb):
        """Tell whether SQLAlchemy allows that now."""
        when = self.verbs.get(verb)
        if when is None or (self.model.dead and "dead" not in when):
            return False
        return "savepoint" not in when or len(self.model.frames) > 1

    def stored(self):
        """Give the rows that others see."""
        with self.engine.connect() as connection:
            return set(connection.scalars(select(Order.id)))

    def begin(self, _row):
        """Begin by name, where autobegin has not."""
        if not self.model.frames:
            self.real.begin()
        self.model.begin()

    def read(self, _row):
        """Read."""
        self.real.execute(select(Order)).all()
        self.model.begin()

    def savepoint(self, _row):
        """Open a savepoint."""
        self.savepoints.append(self.real.begin_nested())
        self.model.savepoint()

    def release(self, _row):
        """Release the innermost savepoint."""
        self.savepoints.pop().commit()
        self.model.release()

    def undo(self, _row):
        """Roll back to the innermost savepoint."""
        self.savepoints.pop().rollback()
        self.model.undo()

    def commit(self, _row):
        """Commit."""
        self.real.commit()
        self.savepoints.clear()
        self.model.commit()

    def rollback(self, _row):
        """Roll back."""
        self.real.rollback()
        self.savepoints.clear()
        self.model.rollback()

    def close(self, _row):
        """Close, and go on with a new one."""
        self.real.close()
        self.savepoints.clear()
        self.model.close()
        self.real = self.make()


class ASession(Owner):
    """A session."""

    verbs = SHARED | {"core": "", "pend": "", "bulk": ""}

    def make(self):
        """Make one."""
        return Session(self.engine)

    def write(self, row):
        """Flush an order."""
        self.pend(row)
        self.real.flush()

    def pend(self, row):
        """Add an order, and leave the flush to others."""
        self.real.add(Order(id=row, name=f"{row}"))
        self.model.write(row)

    def bulk(self, row):
        """Insert without the unit of work."""
        self.real.execute(insert(Order).values(id=row, name=f"{row}"))
        self.model.write(row)

    def core(self, row):
        """Insert on the session's connection."""
        table = Order.__table__
        values = insert(table).values(id=row, name=f"{row}")
        self.real.connection().execute(values)
        self.model.write(row)

    def fail(self, _row):
        """Have a flush fail."""
        self.real.add(Order(id=TAKEN, name="again"))
        with pytest.raises(IntegrityError):
            self.real.flush()
        self.model.fail()


class AConnection(Owner):
    """A connection."""

    verbs = SHARED | {"close_savepoint": "in savepoint"}

    def make(self):
        """Make one."""
        return self.engine.connect()

    def write(self, row):
        """Insert an order."""
        self.real.execute(insert(Order).values(id=row, name=f"{row}"))
        self.model.write(row)

    def fail(self, _row):
        """Have a statement fail; SQLite's transaction goes on."""
        with pytest.raises(IntegrityError):
            self.real.execute(insert(Order).values(id=TAKEN, name="again"))
        self.model.write()

    def close_savepoint(self, _row):
        """Close the innermost savepoint."""
        self.savepoints.pop().close()
        self.model.close_savepoint()


RULES = {
    "plain": lambda call: call,
    "opted out": lambda call: call.after_commit(False),
    "always": lambda call: call.always(),
}
likely = ["write", "savepoint", "release", "undo"]
in_session = [*ASession.verbs, *likely]
on_connection = [*AConnection.verbs, *likely]
# One draw for each step: what is composed takes Hypothesis several times as long.
steps = st.sampled_from(
    [
        *product([0, 0, 2], in_session),
        *product([1, 1], on_connection),
        *product(["defer"] * 5, ["plain", "plain", "plain", "opted out", "always"]),
    ]
)


class World:
    """Two sessions, a connection, and the calls of one unit."""

    def __init__(self, engines):
        makers = ASession, AConnection, ASession
        self.owners = [
            make(engine) for make, engine in zip(makers, engines, strict=True)
        ]
        self.calls = []
        self.rows = TAKEN

    def do(self, step, *, defers):
        """Take a step; write, too, defers a call that looks for its row."""
        who, verb = step
        if who == "defer":
            if defers:
                self.defer(verb, None)
            return
        owner = self.owners[who]
        if owner.may(verb):
            self.rows += 1
            getattr(owner, verb)(self.rows)
            if defers and verb in {"write", "pend", "core", "bulk"}:
                self.defer("plain", (owner, self.rows))

    def defer(self, rule, row):
        """Defer a call, and have the model wait for what is open."""
        call = Call(rule, row)
        for owner in self.owners:
            owner.model.wait(call)
        call.real = RULES[rule](defer(list))
        self.calls.append(call)

    def end(self):
        """Close all, and wait for what still runs."""
        for owner in self.owners:
            owner.close(None)
            owner.real.close()
        if any(call.real.state in {"pending", "running"} for call in self.calls):
            postlude.drain(20)

    def check(self):
        """Compare what happened with the model, and with what is stored."""
        states = [call.real.state for call in self.calls]
        assert states == ["done" if call.runs else "dropped" for call in self.calls]
        for owner in self.owners:
            assert owner.stored() == owner.model.stored
        for call in self.calls:
            if call.row is not None and call.real.state == "done":
                owner, row = call.row
                assert row in owner.stored(), "a call ran whose order was never saved"


@pytest.fixture(scope="module")
def engines():
    """Three databases in memory."""
    with ExitStack() as stack:
        engines = []
        for _ in range(3):
            engine = create_engine("sqlite://", poolclass=StaticPool)
            stack.callback(engine.dispose)
            begin_for_real(engine)
            Base.metadata.create_all(engine)
            engines.append(engine)
        yield engines


@settings(max_examples=TREES)
@given(st.lists(steps, min_size=6, max_size=40), st.lists(steps, max_size=15))
def test_the_right_calls_run(engines, inside, after):
    """Those whose transactions committed, all of them, and no other (B3, C2)."""
    world = World(engines)
    with DeferScope():
        for step in inside:
            world.do(step, defers=True)
    for step in after:
        world.do(step, defers=False)
    world.end()
    world.check()
