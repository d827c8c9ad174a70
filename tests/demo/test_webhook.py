import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from postlude.failures import FailureRecord
from postlude.queues import _opening as queues
from shop.journal import Entry
from shop.opening import ShopError
from shop.settings import BadSettingError, Settings
from shop.terminal import make_console
from shop.webhook.engines import (
    EMBEDDED,
    ENGINES,
    Engine,
    engine_named,
    open_engine,
)
from shop.webhook.receiver import BROKEN, OK, Receiver, Request
from shop.webhook.results import Seen, counts, is_over, lost, problems, reasons
from shop.webhook.table import introduce, show
from shop.webhook.trial import Plan, Trial
from shop.wire import exchange

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def start(tmp_path, **settings):
    """Start the demo with numbers that a test can wait for."""
    return subprocess.Popen(
        [sys.executable, "-m", "shop.webhook"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH")])
            ),
            "REPORT_DIR": str(tmp_path / "report"),
            "ORDERS": "9",
            "OWN_MS": "5",
            "DOWN_S": "1",
            **settings,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "framework",
    [
        "fastapi",
        pytest.param("flask", marks=pytest.mark.wide),
        pytest.param("django", marks=pytest.mark.wide),
    ],
)
def test_retries_lose_nothing(tmp_path, framework):
    """What a receiver refuses is recorded, or is run again until it is taken (F1)."""
    demo = start(tmp_path, FRAMEWORK=framework)
    out, errors = demo.communicate()
    assert demo.returncode == 0, out + errors
    assert errors == ""
    assert "With .retry(3) nothing was lost" in out
    numbers = json.loads((tmp_path / "report" / "webhook.json").read_text("utf-8"))
    assert numbers["problems"] == []
    assert numbers["down_s"] >= 1
    plain, retry = numbers["counts"]["plain"], numbers["counts"]["retry"]
    assert (plain["orders"], retry["orders"]) == (9, 9)
    assert plain["lost"] == plain["recorded"] == len(numbers["lost"]["plain"])
    assert plain["lost"] == plain["answered"] + plain["unreachable"] > 0
    assert sum(numbers["records"]["plain"].values()) == plain["lost"]
    assert (plain["jobs"], plain["runs"]) == (0, 0)
    assert (retry["lost"], retry["recorded"], retry["delivered"]) == (0, 0, 9)
    # All nine, where the receiver was down before the first of them was on its way.
    assert 0 < retry["jobs"] == retry["answered"] + retry["unreachable"] <= 9
    assert retry["runs"] >= retry["jobs"]
    assert retry["duplicates"] == 0


def test_ctrl_c_ends_everything(tmp_path):
    """Ctrl-C while the receiver is down ends the shop, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    demo = start(tmp_path, ORDERS="1000", DOWN_S="60", PORT=str(port))
    assert demo.stdout is not None
    while not demo.stdout.readline().startswith("Posting"):
        assert demo.poll() is None
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate()
    assert (demo.returncode, errors) == (130, "\nStopped; the shop is closed.\n")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_an_unknown_engine_starts_nothing(tmp_path):
    """An engine that the demo does not know ends it with status 2, in three beats."""
    demo = start(tmp_path, ENGINE="sidekiq")
    out, errors = demo.communicate()
    assert (demo.returncode, out) == (2, "")
    assert errors.startswith("error: ENGINE=sidekiq is not one of sqlite, absurd, ")


def test_engines_have_short_names():
    """A name stands for the engine on its usual server; both may be said."""
    assert engine_named("SQLite") == EMBEDDED
    assert engine_named("celery") == "celery+amqp"
    assert engine_named("celery+redis") == "celery+redis"
    for wrong in ("sidekiq", "celery+kafka", "+amqp", "sqlite+redis"):
        with pytest.raises(BadSettingError, match=r"ENGINE=.* is not one of"):
            engine_named(wrong)


def test_every_engine_is_offered():
    """All that Postlude carries jobs on, but for Django's tasks, which need a site."""
    known = {scheme.partition("+")[0] for scheme in queues.ENGINES}
    assert known - {"django"} == {EMBEDDED, *ENGINES}


def test_a_missing_server_is_an_error(tmp_path, monkeypatch):
    """A broker that is not there is an error, said before a shop is opened."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        monkeypatch.setenv("AMQP_URL", f"amqp://guest:guest@127.0.0.1:{port}//")
        with pytest.raises(ShopError) as caught, open_engine("celery+amqp", tmp_path):
            pass
    happened, cause, fix = str(caught.value).splitlines()
    assert happened == f"error: no RabbitMQ at 127.0.0.1:{port}: Connection refused."
    assert cause == "cause: it does not run, or it runs elsewhere."
    assert "AMQP_URL=" in fix


def test_the_receiver_has_the_same_luck_again():
    """A seed answers one request in ten with 500, the same ones in each run."""

    def luck(seed):
        receiver = Receiver(seed)
        return [receiver.take(order, None) for order in range(1000) for _ in range(2)]

    assert luck(1) == luck(1) != luck(2)
    assert 150 < luck(1).count(BROKEN) < 250


def knock_on(port):
    """Connect to a port until somebody refuses."""
    while True:
        socket.create_connection(("127.0.0.1", port)).close()


def test_the_receiver_can_be_down():
    """A receiver that is down refuses connections, and is back at the same port."""
    with Receiver(1) as receiver:
        port = receiver.port
        assert exchange(port, "POST", "/orders", {"order": 7}).status in {OK, BROKEN}
        gate = threading.Event()
        receiver._closing.wait = lambda seconds: not gate.wait()
        receiver.go_down(1)
        with pytest.raises(ConnectionRefusedError):
            knock_on(port)
        assert receiver.is_down
        assert receiver.downtime is None
        gate.set()
        receiver._break.join()
        assert receiver.downtime is not None
        assert exchange(port, "POST", "/orders", {"order": 8}).status in {OK, BROKEN}
        assert [request.order for request in receiver.requests] == [7, 8]
    with pytest.raises(ConnectionRefusedError):
        knock_on(port)


RECORD = FailureRecord(
    id="1",
    name="deliver",
    function="shop.webhook.delivery:deliver",
    arguments={"order_id": "1"},
    state="failed",
    unit={},
    site="app.py:1 in order",
    exception="ConnectError('[Errno 111] Connection refused')",
    traceback=None,
    started=None,
    ended=0.0,
)
GOOD, BAD = Entry("webhook", 1, 0, 1), Entry("webhook", 1, 0, 1, "ConnectError()")
TAKEN = Request(1, "a", OK, 5.0)
REFUSED = replace(TAKEN, status=BROKEN)


@pytest.fixture
def seen(post):
    """Return a function that says what was seen of one order."""

    def make(way, runs, requests, records=(), jobs=0):
        order = replace(post(1, "after"), way=way)
        return Seen([order], {1: runs}, {1: requests}, dict(records), jobs)

    return make


def test_what_must_be_is_no_problem(seen):
    """A webhook arrives at once, fails and is recorded, or arrives by the queue."""
    at_once = seen("plain", [GOOD], [TAKEN])
    failed = seen("plain", [BAD], [], {1: RECORD})
    saved = seen("retry", [BAD, GOOD], [REFUSED, TAKEN], jobs=1)
    assert [problems(each) for each in (at_once, failed, saved)] == [[], [], []]
    assert [lost(each) for each in (at_once, failed, saved)] == [[], [1], []]
    assert [is_over(each, 1) for each in (at_once, failed, saved)] == [True] * 3
    assert reasons(failed) == [("ConnectError: [Errno 111] Connection refused", 1)]
    numbers = counts(saved)
    assert (numbers.unreachable, numbers.jobs, numbers.runs) == (1, 1, 1)
    assert (numbers.delivered, numbers.lost, numbers.duplicates) == (1, 0, 0)
    assert numbers.slowest == pytest.approx(5.0 - 1.08)


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (("plain", [BAD], []), "was lost, and nothing was recorded"),
        (("plain", [GOOD], [TAKEN], {1: RECORD}), "arrived, and is recorded as failed"),
        (("plain", [BAD], [], {1: RECORD}, 1), "given 1 jobs (plain), not 0"),
        (("retry", [BAD] * 4, [], {1: RECORD}, 1), "lost in spite of its retries"),
        (("retry", [BAD, GOOD], [TAKEN]), "given 0 jobs (retry), not 1"),
        (("retry", [GOOD], [TAKEN], {}, 1), "given 1 jobs (retry), not 0"),
        (
            ("retry", [BAD, GOOD], [replace(REFUSED, key="b"), TAKEN], {}, 1),
            "its idempotency id was not the same in every run",
        ),
    ],
)
def test_what_must_not_be_is_a_problem(seen, sides, said):
    """What is lost without a record, or in spite of retries, is named, and no more."""
    (problem,) = problems(seen(*sides))
    assert said in problem


def test_duplicates_are_told_by_the_id(seen):
    """A second delivery is one more of the same id; without an id, of the order."""
    twice = seen("retry", [GOOD, GOOD], [TAKEN, REFUSED, TAKEN])
    assert counts(twice).duplicates == 1
    nameless = replace(TAKEN, key=None)
    assert counts(seen("plain", [GOOD], [nameless] * 3)).duplicates == 2


@pytest.mark.parametrize("width", [64, 80, 120])
def test_the_terminal_is_wide_enough(seen, width, capsys, monkeypatch):
    """No line of the table is wider than the terminal, and none is cut."""
    monkeypatch.setenv("COLUMNS", str(width))
    both = {
        "plain": seen("plain", [BAD], [], {1: RECORD}),
        "retry": seen("retry", [BAD, GOOD], [TAKEN], jobs=1),
    }
    numbers = {way: counts(one) for way, one in both.items()}
    engine = Engine("Celery on RabbitMQ", "celery+amqp://", "celery", workers=True)
    introduce(make_console(), Plan(Settings(), engine, 1, 5))
    show(make_console(), Trial(both, 5.0, ""), numbers, [])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    shown = "\n".join(lines)
    assert "jobs that the queue saw                          0           1" in shown
    assert "lost                                             1           0" in shown
    assert "Celery on RabbitMQ" in shown
