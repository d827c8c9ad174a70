"""E4: Sentry's real client reports failures and transactions, to a transport here."""

import pytest
import sentry_sdk
from sentry_sdk.transport import Transport

from postlude import DeferScope, defer, drain
from postlude.instrumentation import sentry
from postlude.transactions import begin


class Mailbox(Transport):
    """A transport that keeps what it is given."""

    def __init__(self, options=None):
        super().__init__(options)
        self.items = []

    def capture_envelope(self, envelope):
        """Keep what an envelope holds."""
        for item in envelope.items:
            event = item.get_event() or item.get_transaction_event()
            if event is not None:
                self.items.append(event)

    def errors(self):
        """Give the events that are no transactions."""
        return [item for item in self.items if item.get("type") != "transaction"]

    def transactions(self):
        """Give the transactions."""
        return [item for item in self.items if item.get("type") == "transaction"]


@pytest.fixture
def mailbox():
    """A client with a transport here, watching."""
    box = Mailbox()
    with sentry_sdk.isolation_scope():
        sentry_sdk.init(
            dsn="https://public@localhost/1",
            transport=box,
            traces_sample_rate=1.0,
            auto_enabling_integrations=False,
        )
        sentry.install()
        yield box
        sentry_sdk.init(auto_enabling_integrations=False)


def test_a_failure_is_one_event_with_the_requests_tags(mailbox):
    """With the place that deferred the call; our own log line makes no second (E4)."""

    def bad():
        raise ValueError("no")

    with DeferScope():
        sentry_sdk.set_tag("tenant", "acme")
        defer(bad).named("mail")
    (event,) = mailbox.errors()
    assert event["exception"]["values"][0]["type"] == "ValueError"
    assert event["tags"]["tenant"] == "acme"
    assert event["tags"]["postlude.function"].endswith("bad")
    assert event["contexts"]["postlude"]["name"] == "mail"
    assert __file__ in event["contexts"]["postlude"]["site"]


@pytest.mark.parametrize("fails", [True, False])
def test_each_call_has_a_transaction_in_the_trace_of_its_request(mailbox, fails):
    """Of its own, with the right status (E4)."""

    def work():
        if fails:
            raise ValueError("no")

    with DeferScope(), sentry_sdk.isolation_scope():  # as its integrations do
        begun = sentry_sdk.continue_trace({}, op="http.server", name="request")
        with sentry_sdk.start_transaction(begun) as request:
            trace_id = request.trace_id
            defer(work)
    own = [item for item in mailbox.transactions() if item["transaction"] != "request"]
    (transaction,) = own
    assert transaction["transaction"].endswith("work")
    trace = transaction["contexts"]["trace"]
    assert trace["trace_id"] == trace_id
    assert (trace["status"] == "internal_error") is fails


async def test_an_async_call_is_watched_too(mailbox):
    """On a loop as in a thread (E4)."""

    async def bad():
        raise ValueError("no")

    async with DeferScope():
        defer(bad)
    assert len(mailbox.errors()) == 1


def test_a_lost_call_is_reported(mailbox):
    """No exception tells of it (D7, E4)."""
    with DeferScope():
        begin("db")
        defer(list)
    drain(0)
    (event,) = mailbox.errors()
    assert "lost" in event["message"]


def test_what_a_call_sets_stays_with_it(mailbox):
    """Tags of one call are not those of the next (E3)."""

    def first():
        sentry_sdk.set_tag("leak", "yes")

    def second():
        raise ValueError("no")

    with DeferScope():
        defer(first)
        defer(second)
    (event,) = mailbox.errors()
    assert "leak" not in event["tags"]
