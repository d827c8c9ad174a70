"""F2, F3: what is particular to TaskIQ on RabbitMQ."""

import json
from importlib import import_module

import broker_jobs
import pytest
from broker_kinds import AMQP, KINDS, TASKIQ

import postlude
from postlude import _call
from postlude.exceptions import SettingsError
from postlude.queues import open_queue

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.parametrize(
        "stage",
        [TASKIQ] if TASKIQ in KINDS else [],
        indirect=True,
        ids=["taskiq"] * (TASKIQ in KINDS),
    ),
]


@pytest.fixture
def rabbit():
    """A connection of another library's to the same server."""
    pika = import_module("pika")
    url = AMQP.replace("5672//", "5672/%2F")
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        yield connection.channel()


def a_message(name, *args, **labels):
    """Write a message of TaskIQ's, as any program can."""
    fields = {"task_id": "1", "task_name": name, "labels": labels}
    return json.dumps({**fields, "args": list(args), "kwargs": {}})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(a_message("os:system", "true"), "os:system", id="task"),
        pytest.param(a_message("postlude_run", 1, 2), "no job", id="arguments"),
        pytest.param("{not json", "none of TaskIQ's", id="no JSON"),
        pytest.param("x" * 50_000_000, "none of TaskIQ's", id="50 MB"),
        pytest.param("\x80\x04N.", "none of TaskIQ's", id="pickle"),
    ],
)
def test_a_stranger_is_refused_and_recorded(stage, rabbit, body, said):
    """TaskIQ itself would drop such a message with a line in its log (F3)."""
    postlude.queue(broker_jobs.note, "before")
    rabbit.basic_publish("", stage.name, body.encode("latin-1"))
    postlude.queue(broker_jobs.note, "after")
    stage.worker()
    stage.wait_for("after")
    assert stage.wait_for_record(said).state == "failed"
    lines = stage.ledger.read_text().splitlines()
    assert {line.split()[0] for line in lines} == {"before", "after"}


def test_a_label_cannot_have_a_job_acknowledged_before_it_runs(stage, rabbit):
    """Whatever a message says of itself, its job survives its worker (F2)."""
    path = stage.folder / "go-on"
    postlude.queue(broker_jobs.hang, "hung", str(path))
    _, _, body = rabbit.basic_get(stage.name, auto_ack=True)
    message = json.loads(body) | {"labels": {"ack_type": "when_received"}}
    rabbit.basic_publish("", stage.name, json.dumps(message))
    worker = stage.worker()
    stage.wait_for("hung")
    stage.kill(worker)
    path.touch()
    stage.worker()
    assert [run[1] for run in stage.wait_for("hung", 2)] == [1, 2]


def test_a_queue_that_somebody_deleted_is_made_again(stage, rabbit):
    """What no queue takes is not taken for written (F2)."""
    postlude.queue(broker_jobs.note, "gone")
    rabbit.queue_delete(stage.name)
    postlude.queue(broker_jobs.note, "kept")
    stage.worker()
    stage.wait_for("kept")
    assert stage.lines("gone") == []


def test_a_short_delay_is_not_behind_a_long_one(stage):
    """Each delay waits in a queue of its own (F4)."""
    stage.worker()
    postlude.queue(broker_jobs.note, "long", delay=8.0)
    postlude.queue(broker_jobs.note, "short", delay=0.5)
    stage.wait_for("long")
    (short,), (long,) = stage.lines("short"), stage.lines("long")
    assert short[2] < long[2]


def test_a_job_that_fails_after_its_connection_broke_is_not_written_anew(stage):
    """RabbitMQ has its message still, and nothing is written beside it (F1, F2)."""
    proxied, proxy = stage.proxied()
    environment = {"POSTLUDE_QUEUE": proxied}
    path = stage.folder / "mended"
    gate = stage.folder / "go-on"
    call = postlude.queue(
        broker_jobs.hang_then_fail, "hung", str(gate), str(path), retries=5, backoff=0.1
    )
    stage.worker(**environment)
    stage.wait_for("hung")
    proxy.cut()
    proxy.mend()
    stage.wait_for("hung", 2)
    path.touch()
    gate.touch()
    stage.wait_for("hung-ended", 2)
    postlude.queue(broker_jobs.note, "after", delay=0.5)
    stage.wait_for("after")
    assert [run[:2] for run in stage.lines("hung")] == [(call.id, 1), (call.id, 2)]


def test_redis_is_refused(stage):
    """TaskIQ's brokers there do not keep the promise (F4)."""
    with pytest.raises(SettingsError, match=r"taskiq\+amqp"):
        open_queue("taskiq+redis://127.0.0.1:6379/0")


def test_what_it_can(stage):
    """The capabilities say what the tests show (F4)."""
    can = _call.carrier.queue.can
    assert (can.at_least_once, can.delays, can.keys) == (True, True, False)
