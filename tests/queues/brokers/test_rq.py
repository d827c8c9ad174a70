"""E2, F3: RQ's own list of failed jobs, its own command, and strange functions."""

from importlib import import_module

import broker_jobs
import pytest
from broker_kinds import KINDS, REDIS, RQ
from broker_stage import until

import postlude
from postlude import _call

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.parametrize(
        "stage", [RQ] if RQ in KINDS else [], indirect=True, ids=["rq"] * (RQ in KINDS)
    ),
]


def test_failed_jobs_are_listed_run_again_and_forgotten(stage):
    """RQ's registry of failed jobs is shown through the port, and obeys it (E2)."""
    path = stage.folder / "mended"
    queue = _call.carrier.queue
    mended = postlude.queue(
        broker_jobs.fail_until, "mended", str(path), retries=1, backoff=0.1
    )
    lost = postlude.queue(broker_jobs.fail, "lost", retries=0)
    stage.worker()
    until(lambda: len(list(queue.failed())) == 2)
    found = {record.id: record for record in queue.failed()}
    assert set(found) == {mended.id, lost.id}
    assert found[mended.id].attempt == 2
    assert "ValueError" in str(found[lost.id].exception)
    path.touch()
    assert queue.retry([mended.id, "nobody"]) == 1
    runs = stage.wait_for("mended", 3)
    assert [run[:2] for run in runs] == [(mended.id, n) for n in (1, 2, 2)]
    assert queue.forget([lost.id]) == 1
    assert list(queue.failed()) == []


def test_rqs_own_command_is_a_worker(stage):
    """`rq worker` with our worker class and the JSON serializer runs jobs (F1)."""
    call = postlude.queue(broker_jobs.fail, "command", retries=1, backoff=0.2)
    worker = stage.start(
        *("-m", "rq.cli", "worker", "--with-scheduler", "--url", REDIS),
        *("-w", "postlude.queues.rq.Worker", "-S", "rq.serializers.JSONSerializer"),
        stage.name,
    )
    assert stage.wait_for_record("command").attempt == 2
    assert [run[:2] for run in stage.lines("command")] == [(call.id, 1), (call.id, 2)]
    worker.terminate()
    assert worker.wait(60) == 0


def test_an_rq_job_of_another_function_is_refused(stage):
    """A job that names `os.mkdir` in RQ's own way is recorded and not run (F3)."""
    victim = stage.folder / "victim"
    redis = import_module("redis").Redis.from_url(REDIS)
    serializer = import_module("rq.serializers").JSONSerializer
    queue = import_module("rq").Queue(
        stage.name, connection=redis, serializer=serializer
    )
    queue.enqueue("os.mkdir", str(victim))
    redis.close()
    stage.worker()
    assert "os.mkdir" in str(stage.wait_for_record("os.mkdir").exception)
    assert not victim.exists()
