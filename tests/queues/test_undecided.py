"""F2, F4: engines without leases cannot wait for a commit, so nothing waits unseen."""

from contextlib import contextmanager
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

import postlude
from postlude import DeferScope, QueueError, _settings, defer, transaction
from postlude.integrations.fastapi import install
from postlude.queues import Capabilities


def work(what):
    """Be a function that can be found by its name; workers would run it."""


class Broker:
    """An engine without leases, as a broker is: what it is given, workers begin."""

    name = "broker"
    can = Capabilities(
        at_least_once=True,
        leases=False,
        transactional=False,
        delays=True,
        policy_per_call=False,
        keeps_failures=False,
        keys=False,
        embedded=False,
        recovery=1.0,
    )

    def __init__(self):
        self.ids = []

    def put(self, jobs, /, *, hold=0.0):
        """Take jobs."""
        self.ids += [job.id for job in jobs]
        return [job.id for job in jobs]

    def close(self):
        """Have nothing open."""


@pytest.fixture
def broker():
    """The engine of this test."""
    broker = Broker()
    _settings.reset()
    # This file is no module of an importable name; as a project's it would have one.
    postlude.configure(queue=broker, modules=(__name__.partition(".")[0],))
    yield broker
    postlude.drain(5)
    _settings.reset()
    postlude.settings()


class Shop:
    """A FastAPI application whose transactions end before and after the response."""

    def __init__(self, option):
        self.calls = []
        self.states = []

        def after_the_response():
            with transaction():
                yield

        def before_the_response():
            yield

        app = FastAPI()
        install(app)

        @app.get("/after")
        def after(_: Annotated[None, Depends(after_the_response)]):
            self.calls.append(option())
            return "ok"

        @app.get("/before")
        def before(_: Annotated[None, Depends(before_the_response)]):
            with transaction():
                self.calls.append(option())
            return "ok"

        @app.get("/rolled-back")
        def rolled_back():
            with contextmanager(_swallow)(), transaction():
                self.calls.append(option())
                raise ValueError
            return "ok"

        self.client = TestClient(app, raise_server_exceptions=False)


def _swallow():
    try:
        yield
    except ValueError:
        pass


def durable():
    """Defer durably."""
    return defer(work, 1).durable()


def test_a_transaction_that_outlives_the_response_refuses_durable(broker):
    """A dependency that commits after the response: 500, and nothing is kept (F2)."""
    shop = Shop(durable)
    assert shop.client.get("/after").status_code == 500
    assert broker.ids == []
    assert shop.calls[0].state == "dropped"


def test_a_transaction_that_was_committed_lets_durable_be_written(broker):
    """Committed before the response: it is written before it, once (F2)."""
    shop = Shop(durable)
    assert shop.client.get("/before").status_code == 200
    assert broker.ids == [shop.calls[0].id]
    assert shop.calls[0].state == "handed_over"


def test_a_transaction_that_rolled_back_lets_nothing_be_written(broker):
    """Rolled back before the response: the engine never hears of it (C2, F2)."""
    shop = Shop(durable)
    assert shop.client.get("/rolled-back").status_code == 200
    assert broker.ids == []
    assert (shop.calls[0].state, shop.calls[0].reason) == ("dropped", "rollback")


@pytest.mark.parametrize(
    "option",
    [
        lambda: defer(work, 1).durable().after_commit(False),
        lambda: defer(work, 1).always().durable(),
    ],
    ids=["after_commit(False)", "always()"],
)
def test_what_a_rollback_does_not_drop_is_written(broker, option):
    """`.after_commit(False)` and `.always()` run after a rollback as well (C2)."""
    shop = Shop(option)
    assert shop.client.get("/rolled-back").status_code == 200
    assert broker.ids == [shop.calls[0].id]


def test_queue_waits_here_for_a_transaction_that_outlives_the_response(broker):
    """`queue()` promised no date: it is written after response and commit (B3)."""
    shop = Shop(lambda: postlude.queue(work, 1))
    assert shop.client.get("/after").status_code == 200
    assert broker.ids == [shop.calls[0].id]
    assert shop.calls[0].state == "handed_over"


def test_queue_and_durable_is_refused_like_durable(broker):
    """`queue().durable()` is a promise, too (F2)."""
    shop = Shop(lambda: postlude.queue(work, 1).durable())
    assert shop.client.get("/after").status_code == 500
    assert broker.ids == []


def test_the_refusal_says_what_to_do(broker):
    """Three beats: what happened, the usual cause, the fix (F4)."""
    with (
        pytest.raises(QueueError, match=r"(?s)still open.*Usually.*Commit before it"),
        transaction(),
        DeferScope(),
    ):
        defer(work, 1).durable()
    assert broker.ids == []


def test_a_condition_is_asked_too_late_for_durable(broker):
    """`.when()` is asked after the response; `.durable()` with it is refused (F4)."""
    with pytest.raises(QueueError, match=r"when\(\)"), DeferScope():
        defer(work, 1).durable().when(lambda _: True)
    assert broker.ids == []


def test_queue_obeys_its_condition(broker):
    """`queue()` with `.when()` is written when that was asked, or not at all (C1)."""
    with DeferScope():
        yes = postlude.queue(work, 1).when(lambda outcome: outcome.ok)
        no = postlude.queue(work, 2).when(lambda _: False)
    assert broker.ids == [yes.id]
    assert (no.state, no.reason) == ("dropped", "outcome")


def test_a_late_durable_call_in_a_transaction_is_refused_at_the_call(broker):
    """After the head has left, the error is raised where `.durable()` stands (F2)."""
    seen = []

    def late():
        with transaction():
            try:
                defer(work, 1).durable()
            except QueueError as exc:
                seen.append(str(exc))

    with DeferScope():
        defer(late)
    assert len(seen) == 1
    assert broker.ids == []
