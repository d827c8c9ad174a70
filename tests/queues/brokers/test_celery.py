"""F1, F2: Celery's own command, a user's own app, and messages that are no tasks."""

import os

import broker_jobs
import pytest
from broker_kinds import CELERY_AMQP, CELERY_REDIS, KINDS

import postlude
from postlude import _call
from postlude.exceptions import SettingsError
from postlude.queues import open_queue

CELERY = [kind for kind in (CELERY_AMQP, CELERY_REDIS) if kind in KINDS]
COMMAND = ("-m", "celery", "-A")
ENQUEUE = """
import sys, broker_celery_app, broker_jobs, postlude
broker_celery_app.own.delay("user's")
postlude.queue(broker_jobs.fail, "ours", retries=1, backoff=0.2)
"""

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.parametrize("stage", CELERY, indirect=True, ids=lambda kind: kind.name),
]


def test_celerys_own_command_is_a_worker(stage):
    """`celery -A postlude.queues.celery worker` works on the setting `queue` (F1).

    In the folder of the project, which such a command does not look into by itself.
    """
    call = postlude.queue(broker_jobs.fail, "command", retries=1, backoff=0.2)
    command = ("-P", *COMMAND, "postlude.queues.celery", "worker", "-c", "2")
    worker = stage.start(*command, PYTHONPATH=os.environ.get("PYTHONPATH", ""))
    assert stage.wait_for_record("command").attempt == 2
    assert [run[:2] for run in stage.lines("command")] == [(call.id, 1), (call.id, 2)]
    worker.terminate()
    assert worker.wait(60) == 0


def test_a_users_own_app_learns_the_generic_task(stage):
    """`CeleryQueue(app)`: the user's worker runs the user's tasks and our jobs (F1)."""
    own = {"BROKER": stage.kind.broker, "QUEUE_NAME": stage.name}
    enqueue = stage.start("-c", ENQUEUE, **own)
    assert enqueue.wait(60) == 0
    stage.start(*COMMAND, "broker_celery_app", "worker", "-c", "1", **own)
    stage.wait_for("user's")
    assert stage.wait_for_record("ours").attempt == 2
    assert len(stage.lines("ours")) == 2


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(
            b"\x80\x04cos\nsystem\n.", "application/x-python-serialize", id="pickle"
        ),
        pytest.param(b"{not json", "application/json", id="no JSON"),
        pytest.param(b'["postlude"]', "application/json", id="no task"),
    ],
)
def test_a_message_that_is_no_task_is_recorded(stage, body, content_type):
    """Pickle, broken JSON, or no task at all: refused, recorded, never run (F3)."""
    queue = _call.carrier.queue
    with queue.app.connection_for_write() as connection:
        producer = connection.Producer()
        producer.publish(
            body,
            exchange="",
            routing_key=stage.name,
            content_type=content_type,
            content_encoding="utf-8" if b"{" in body or b"[" in body else "binary",
            declare=[queue.app.amqp.queues[stage.name]],
        )
    postlude.queue(broker_jobs.note, "good")
    stage.worker()
    stage.wait_for("good")
    assert stage.wait_for_record("refused").state == "failed"


def test_options_that_nobody_knows_are_refused(stage):
    """A misspelt option of an address is an error, with the name of it (F4)."""
    with pytest.raises(SettingsError, match="visibilty"):
        open_queue(f"{stage.address}&visibilty=3")
    with pytest.raises(SettingsError, match="visibility_timeout='x'"):
        open_queue("celery+redis://localhost?visibility_timeout=x")
