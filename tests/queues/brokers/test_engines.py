"""F1, F2, D7: what every engine on a broker promises, on the real one."""

import json
import signal
from itertools import pairwise

import broker_jobs
import pytest
from broker_kinds import AT_LEAST_ONCE, AT_MOST_ONCE, KINDS
from broker_stage import PATIENCE, get, until

import postlude
from postlude import DeferScope, _call
from postlude.exceptions import QueueOptionError
from postlude.queues import Job

pytestmark = pytest.mark.timeout(300)


def gaps(runs):
    """Give the seconds between the begins of runs."""
    times = [time for _, _, time in runs]
    return [later - earlier for earlier, later in pairwise(times)]


def a_job(function, *args, **fields):
    """Give a job as somebody could forge it."""
    payload = json.dumps([list(args), {}])
    return Job("f" * 32, "forged", function, payload, **fields)


def test_a_worker_runs_what_was_queued_under_the_ids_of_the_calls(stage):
    """Sync and async functions run on a worker, under the call's id (F3)."""
    sync = postlude.queue(broker_jobs.note, "sync")
    with DeferScope():
        on_loop = postlude.queue(broker_jobs.anote, "async")
    stage.worker()
    assert [run[:2] for run in stage.wait_for("sync")] == [(sync.id, 1)]
    assert [run[:2] for run in stage.wait_for("async")] == [(on_loop.id, 1)]
    assert sync.state == on_loop.state == "handed_over"


def test_a_failing_job_runs_once_and_its_retries_then_is_recorded(stage):
    """2 retries are 3 runs of one id, with the pauses asked for, then a record (F1)."""
    call = postlude.queue(broker_jobs.fail, "always", retries=2, backoff=[0.4, 0.8])
    stage.worker()
    record = stage.wait_for_record("always")
    runs = stage.lines("always")
    assert [run[:2] for run in runs] == [(call.id, 1), (call.id, 2), (call.id, 3)]
    first, second = gaps(runs)
    assert first >= 0.4
    assert second >= 0.8
    assert (record.id, record.attempt, record.state) == (call.id, 3, "failed")
    assert record.payload is not None


def test_the_first_run_of_retry_is_in_process_and_counts(stage):
    """`.retry(3)` is 4 runs in all, the one in this process included (F1)."""
    with DeferScope():
        call = postlude.defer(broker_jobs.fail, "here").retry(3, backoff=0.1)
    assert call.state == "handed_over"
    assert len(stage.lines("here")) == 1
    stage.worker()
    record = stage.wait_for_record("here")
    assert [run[:2] for run in stage.lines("here")] == [
        (call.id, attempt) for attempt in (1, 2, 3, 4)
    ]
    assert record.attempt == 4


def test_a_delay_is_waited_for(stage):
    """`queue(delay=)` begins no earlier (F4)."""
    stage.worker()
    postlude.queue(broker_jobs.note, "before")
    stage.wait_for("before")
    asked = stage.wait_for("before")[0][2]
    postlude.queue(broker_jobs.note, "later", delay=2.0)
    assert stage.wait_for("later")[0][2] - asked >= 2.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(a_job("os:system", "true").text(), "os", id="os"),
        pytest.param(a_job("broker_jobs:nobody", "x").text(), "nobody", id="unknown"),
        pytest.param(a_job("broker_jobs:os.getpid").text(), "getpid", id="through"),
        pytest.param(a_job("broker_jobs:note", 1, 2, 3).text(), "note", id="arguments"),
        pytest.param("{not json", "no job", id="no JSON"),
        pytest.param("[]", "no job", id="no object"),
        pytest.param("x" * 50_000_000, "no job", id="50 MB"),
    ],
)
def test_a_forged_message_is_refused_recorded_and_never_run(stage, text, said):
    """What a stranger writes to the queue is refused, and the next job runs (F3)."""
    queue = _call.carrier.queue
    stage.kind.forge(queue, stage.name, text)
    postlude.queue(broker_jobs.note, "good")
    stage.worker()
    stage.wait_for("good")
    record = stage.wait_for_record(said)
    assert record.state == "failed"
    assert [line.split()[0] for line in stage.ledger.read_text().splitlines()] == [
        "good"
    ]


@pytest.mark.parametrize(
    "stage", AT_LEAST_ONCE, indirect=True, ids=lambda kind: kind.name
)
def test_a_job_that_kills_its_worker_ends_after_its_retries(stage):
    """Runs are counted before they run: 2 retries are 3 deaths, no fourth (F2)."""
    deadly(stage, "broker_worker.py")


def deadly(stage, worker):
    """Run a job that kills each worker."""
    call = postlude.queue(broker_jobs.kill, "deadly", retries=2, backoff=0.1)
    with stage.supervised(worker):
        record = stage.wait_for_record("broker_jobs:kill")
        postlude.queue(broker_jobs.note, "after")
        stage.wait_for("after")
    assert [run[:2] for run in stage.lines("deadly")] == [
        (call.id, 1),
        (call.id, 2),
        (call.id, 3),
    ]
    assert (record.id, record.state) == (call.id, "failed")
    assert record.payload is not None


@pytest.mark.parametrize(
    "stage", [kind for kind in KINDS if kind.name == "dramatiq+amqp"], indirect=True
)
def test_a_death_before_an_acknowledgement_has_left_costs_no_run(stage):
    """What is written anew runs when the broker has forgotten the old one (F2)."""
    deadly(stage, "broker_late_acks.py")


@pytest.mark.parametrize(
    "stage", AT_LEAST_ONCE, indirect=True, ids=lambda kind: kind.name
)
def test_a_job_whose_worker_was_killed_runs_again(stage, record_property):
    """SIGKILL of a worker and its children in mid-job: the next worker runs it (F2)."""
    path = stage.folder / "go-on"
    call = postlude.queue(broker_jobs.hang, "hung", str(path))
    worker = stage.worker()
    stage.wait_for("hung")
    killed = stage.kill(worker)
    stage.worker()
    runs = stage.wait_for("hung", 2)
    after = runs[1][2] - killed
    said = f"{stage.kind.name}: a job began again {after:.1f} s after SIGKILL"
    record_property("recovery", said)
    path.touch()
    ended = stage.wait_for("hung-ended")
    assert [run[:2] for run in runs] == [(call.id, 1), (call.id, 2)]
    assert ended[0][1] == 2


def test_sigterm_lets_the_job_end_and_loses_none(stage):
    """SIGTERM in mid-job: it ends, then the worker does; the rest runs later (D7)."""
    path = stage.folder / "go-on"
    postlude.queue(broker_jobs.hang, "hung", str(path))
    worker = stage.worker()
    stage.wait_for("hung")
    worker.terminate()
    postlude.queue(broker_jobs.note, "waited")
    path.touch()
    worker.wait(PATIENCE)
    assert worker.returncode == 0
    assert len(stage.lines("hung")) == len(stage.lines("hung-ended")) == 1
    stage.worker()
    stage.wait_for("waited")
    assert len(stage.lines("hung")) == 1


@pytest.mark.parametrize(
    "stage", AT_LEAST_ONCE, indirect=True, ids=lambda kind: kind.name
)
def test_a_durable_call_survives_its_web_process(stage):
    """SIGKILL of the web process right after its 200: the call is written (F2)."""
    web, port = stage.web()
    status, id_ = get(port, "/durable/note/kept")
    stage.kill(web)
    assert status == 200
    stage.worker()
    assert stage.wait_for("kept")[0][0] == id_


@pytest.mark.parametrize(
    "stage", AT_LEAST_ONCE, indirect=True, ids=lambda kind: kind.name
)
def test_a_broker_that_is_down_is_never_silent_and_work_goes_on_when_it_is_back(stage):
    """`.durable()` is a 500, `.retry()` a record that can be run again (F1, F2)."""
    proxied, proxy = stage.proxied()
    environment = {"POSTLUDE_QUEUE": proxied}
    web, port = stage.web(**environment)
    stage.worker(**environment)
    assert get(port, "/durable/note/first")[0] == 200
    stage.wait_for("first")
    proxy.cut()
    assert get(port, "/durable/note/refused")[0] == 500
    assert get(port, "/retry/fail/recorded")[0] == 200
    record = stage.wait_for_record("recorded")
    assert (record.attempt, record.refusal) == (1, None)
    assert record.payload is not None
    assert get(port, "/durable/note/refused")[0] == 500
    proxy.mend()
    assert get(port, "/durable/note/back")[0] == 200
    stage.wait_for("back")
    assert get(port, "/retry/fail/fails")[0] == 200
    assert stage.wait_for_record("fails").attempt == 3
    assert stage.lines("refused") == []
    web.send_signal(signal.SIGTERM)
    web.wait(PATIENCE)


def test_a_forked_child_has_a_connection_of_its_own(stage):
    """A preloaded parent and its children write at the same time, each its own (D8)."""
    assert stage.start("broker_forks.py").wait(PATIENCE) == 0
    stage.worker()
    stage.wait_for("parent", 2)
    for number in range(4):
        stage.wait_for(f"child-{number}", 5)
    until(lambda: stage.records() == [])


@pytest.mark.parametrize(
    "stage", AT_MOST_ONCE, indirect=True, ids=lambda kind: kind.name
)
def test_an_engine_that_runs_at_most_once_refuses_durable(stage):
    """What an engine cannot keep is refused where it is asked for (F4)."""
    with (
        DeferScope(),
        pytest.raises(QueueOptionError, match="keep a job whose process dies"),
    ):
        postlude.defer(broker_jobs.note, "never").durable()
    stage.worker()
    postlude.queue(broker_jobs.note, "good")
    stage.wait_for("good")
    assert stage.lines("never") == []
