import asyncio
import logging
from functools import partial
from pathlib import Path

import pytest
import queue_jobs as jobs
from queue_stage import rows, until

import postlude
from postlude import (
    ArgumentError,
    CallStartedError,
    DeferScope,
    NoQueueError,
    QueueError,
    _codec,
    defer,
    failure_store,
)


@pytest.mark.parametrize("fn", [jobs.note, jobs.anote])
def test_success_never_meets_the_queue(file: Path, fn) -> None:
    """A call that succeeds at once opens no file and asks no engine (F1)."""
    with DeferScope():
        call = defer(fn, "one").retry(3)
    assert (call.state, jobs.seen, file.exists()) == ("done", [("one", 1)], False)


@pytest.mark.parametrize("fn", [jobs.note, jobs.anote])
def test_success_encodes_nothing_that_cannot_change(
    file: Path, fn, monkeypatch
) -> None:
    """Numbers and short texts are written down when there is a failure (F1, F3)."""
    monkeypatch.setattr(_codec, "encode", lambda *_args: pytest.fail("encoded"))
    with DeferScope():
        call = defer(fn, "one").retry(3)
    assert call.state == "done"


@pytest.mark.parametrize("fn", [jobs.flaky, partial(jobs.flaky)])
def test_failure_is_run_again(worked: Path, fn) -> None:
    """A failed first run goes to the queue, and comes back with its id (F1)."""
    with DeferScope():
        call = defer(fn, "one").retry(3, backoff=0.01)
    assert call.state == "handed_over"
    until(lambda: ("one", 2) in jobs.seen)
    assert jobs.ids["one"] == {call.id}
    postlude.drain()
    assert rows(worked) == []
    assert list(failure_store().list()) == []


@pytest.mark.parametrize("fn", [jobs.boom, jobs.aboom])
def test_last_failure_is_recorded(worked: Path, fn) -> None:
    """Three retries are four runs; the last failure is one record (F1)."""
    with DeferScope():
        call = defer(fn, "one").retry(3, backoff=[0.01])
    until(lambda: list(failure_store().list()))
    assert [attempt for _, attempt in jobs.seen] == [1, 2, 3, 4]
    (record,) = failure_store().list()
    assert (record.id, record.attempt, record.state) == (call.id, 4, "failed")
    assert record.exception == "ValueError('one')"
    until(lambda: rows(worked) == [("failed", "one")])


def test_no_retries_left(file: Path) -> None:
    """`.retry(0)` is none: the first failure is the last (F1)."""
    with DeferScope():
        call = defer(jobs.boom, "one").retry(0)
    assert (call.state, file.exists()) == ("failed", False)


def test_sync_call_that_times_out_is_run_again(worked: Path) -> None:
    """A time-out is a failure like any other: it is handed over (F1, D5)."""
    with DeferScope():
        call = defer(jobs.wait, "one").timeout(0.05).retry(1, backoff=0.0)
    until(lambda: ("one", 2) in jobs.seen)
    assert call.state == "handed_over"
    jobs.gate.set()


@pytest.mark.parametrize(
    ("fn", "args", "named"),
    [
        (jobs.Shop().open, ("x",), "method"),
        (lambda name: None, ("x",), "lambda"),
        (jobs.note, (object(),), "name"),
        (jobs.flaky, ("x", open), "times"),
    ],
)
@pytest.mark.parametrize("option", ["retry", "durable"])
def test_what_cannot_be_carried_is_refused(file: Path, fn, args, named, option) -> None:
    """It is refused at the call site, by name, and leaves nothing behind (F3)."""
    with DeferScope() as scope:
        call = defer(fn, *args)
        with pytest.raises(ArgumentError, match=named):
            getattr(call, option)(*([3] if option == "retry" else []))
        assert (call.state, scope.pending) == ("dropped", 0)
    assert jobs.seen == []
    assert rows(file) == []


def test_without_a_queue(tmp_path: Path) -> None:
    """With no queue configured it is an error, and nothing is left behind (F1)."""
    with DeferScope() as scope:
        for ask in (lambda c: c.retry(3), lambda c: c.durable()):
            with pytest.raises(NoQueueError, match="no queue is configured"):
                ask(defer(jobs.note, "one"))
        with pytest.raises(NoQueueError, match=r"^queue\(\) was asked"):
            postlude.queue(jobs.note, "one")
        assert scope.pending == 0
    assert jobs.seen == []


@pytest.mark.parametrize("retries", [-1, 1.5, True, "3", None])
def test_impossible_retries(file: Path, retries) -> None:
    """Retries are a whole number, 0 or more (A4)."""
    with DeferScope(), pytest.raises(ValueError, match="whole number"):
        defer(jobs.note, "one").retry(retries)


@pytest.mark.parametrize("backoff", [-1, "x", [], [1, -1], float("nan"), float("inf")])
def test_impossible_backoff(file: Path, backoff) -> None:
    """Pauses are seconds, 0 or more (A4)."""
    with DeferScope(), pytest.raises(ValueError, match="seconds"):
        defer(jobs.note, "one").retry(1, backoff=backoff)


def test_arguments_are_those_of_the_call(worked: Path) -> None:
    """What is carried is what stood there when `.retry()` was said (F3)."""
    name = ["one"]
    with DeferScope():
        defer(jobs.flaky, jobs.Address("Elm Street")).retry(1, backoff=0.0)
        defer(jobs.flaky, name).retry(1, backoff=0.0)
        name[0] = "two"
    until(lambda: len(jobs.seen) == 4)
    assert (["one"], 2) in jobs.seen
    assert (jobs.Address("Elm Street"), 2) in jobs.seen


class TestAsBefore:
    """The second `.retry()` of a function is not looked at like the first (F1, F3)."""

    def test_each_call_has_its_own_runs(self, worked: Path) -> None:
        """Calls that share what was found good come back each for itself (F1)."""
        with DeferScope():
            for name in ("one", "two", "three"):
                defer(jobs.flaky, name).retry(1, backoff=0.0)
        until(lambda: len(jobs.seen) == 6)
        runs = {(name, run) for name in ("one", "two", "three") for run in (1, 2)}
        assert set(jobs.seen) == runs

    def test_another_policy_is_of_one_call_only(self, file: Path) -> None:
        """A second `.retry()` on a call changes nothing of those like it (A2)."""
        with DeferScope():
            defer(jobs.boom, "one").retry(0)
            kept = defer(jobs.boom, "two").retry(0)
            changed = defer(jobs.boom, "three").retry(0).retry(1)
        assert (kept.state, changed.state) == ("failed", "handed_over")

    def test_arguments_are_looked_at_each_time(self, worked: Path) -> None:
        """What may change is written down at once, what cannot be carried refused."""
        name = ["one"]
        with DeferScope():
            defer(jobs.flaky, "first").retry(1, backoff=0.0)
            defer(jobs.flaky, name).retry(1, backoff=0.0)
            name[0] = "two"
            call = defer(jobs.flaky, object())
            with pytest.raises(ArgumentError, match="argument 'name' of"):
                call.retry(1, backoff=0.0)
        until(lambda: len(jobs.seen) == 4)
        assert (["one"], 2) in jobs.seen
        assert call.state == "dropped"

    @pytest.mark.parametrize(
        ("settings", "error"),
        [({"modules": ("elsewhere",)}, ArgumentError), ({"queue": None}, NoQueueError)],
    )
    def test_settings_may_have_changed(self, file: Path, settings, error) -> None:
        """What was found good under other settings is looked at again (F1, F3)."""
        with DeferScope():
            defer(jobs.note, "one").retry(3)
            call = defer(jobs.note, "two")
            postlude.configure(**settings)
            with pytest.raises(error):
                call.retry(3)
        assert (call.state, jobs.seen) == ("dropped", [("one", 1)])

    def test_equal_is_not_the_same(self, file: Path) -> None:
        """What only equals a policy that was good, or has changed, is refused (A4)."""
        pauses = [1.0]
        with DeferScope():
            defer(jobs.note, "one").retry(1, backoff=1.0)
            for retries, backoff in ((True, 1.0), (1.0, 1.0), (1, True)):
                with pytest.raises(ValueError, match=r"whole number|seconds"):
                    defer(jobs.note, "two").retry(retries, backoff=backoff)
            defer(jobs.note, "one").retry(1, backoff=pauses)
            pauses[0] = -1.0
            with pytest.raises(ValueError, match="seconds"):
                defer(jobs.note, "two").retry(1, backoff=pauses)

    def test_what_cannot_be_hashed_is_refused_too(self, file: Path) -> None:
        """A callable object is no function, whatever it equals (F3)."""

        class Unhashable:
            __hash__ = None

            def __call__(self) -> None: ...

        with DeferScope(), pytest.raises(ArgumentError, match="Unhashable"):
            defer(Unhashable()).retry(3)

    def test_too_late_is_too_late(self, file: Path) -> None:
        """A call that runs cannot be given more runs, however usual they are (A2)."""
        with DeferScope():
            defer(jobs.note, "one").retry(3)
            call = defer(jobs.note, "two")
        with pytest.raises(CallStartedError):
            call.retry(3)


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A queue whose folder is not there."""
    path = tmp_path / "gone" / "queue.db"
    postlude.configure(
        queue=f"sqlite:///{path}", queue_threads=0, modules=("queue_jobs",)
    )
    return path


@pytest.mark.parametrize("fn", [jobs.flaky, jobs.aboom])
def test_engine_is_down_at_the_hand_over(nowhere: Path, fn, caplog) -> None:
    """It becomes a recorded failure that can be run again later (F1)."""
    with DeferScope():
        call = defer(fn, "one").retry(3, backoff=0.0)
    (record,) = failure_store().list()
    assert (call.state, record.id, record.refusal) == ("failed", call.id, None)
    assert "could not be handed to the queue" in caplog.text


def test_engine_is_down_for_a_durable_block(nowhere: Path) -> None:
    """A block that cannot write what must survive it has failed, loudly (F2)."""
    with pytest.raises(QueueError, match="cannot be used now"), DeferScope():
        call = defer(jobs.note, "one").durable()
    assert (call.state, jobs.seen) == ("dropped", [])
    nowhere.parent.mkdir()
    with DeferScope():
        call = defer(jobs.note, "two").durable()
    assert (call.state, jobs.seen) == ("done", [("two", 1)])


def test_each_failure_but_the_last_is_a_warning(worked: Path, caplog) -> None:
    """A run that is followed by another is no error yet (E1)."""
    caplog.set_level(logging.WARNING, "postlude")
    with DeferScope():
        defer(jobs.boom, "one").retry(1, backoff=0.0)

    def levels() -> list[str]:
        said = [r for r in caplog.records if "failed: ValueError" in r.message]
        return [record.levelname for record in said]

    until(lambda: levels() == ["WARNING", "ERROR"])


@pytest.mark.parametrize("fn", [jobs.aboom, jobs.aboom_late])
def test_a_loop_goes_on_while_a_failure_is_handed_over(
    file: Path, fn, monkeypatch
) -> None:
    """Nobody else waits for an engine that takes its time (F1, D3)."""
    postlude.settings()
    engine = postlude._call.carrier.queue
    put = engine.put

    async def block() -> str:
        loop = asyncio.get_running_loop()

        def slow(*args, **options):  # only the loop lets it go on
            loop.call_soon_threadsafe(jobs.gate.set)
            if not jobs.gate.wait(5):
                raise QueueError("the loop stands still")
            return put(*args, **options)

        monkeypatch.setattr(engine, "put", slow)
        async with DeferScope():
            call = defer(fn, "one").retry(1)
        return call.state

    assert asyncio.run(block()) == "handed_over"
