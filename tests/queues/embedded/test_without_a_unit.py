"""A5, F1: calls that run at once, for want of a unit, and what the queue does then."""

import asyncio
from pathlib import Path

import pytest
import queue_jobs as jobs
from queue_stage import rows, until

import postlude
from postlude import QueueError, QueueOptionError, defer, failure_store


def test_without_a_unit(file: Path) -> None:
    """With no unit it runs at once: there is no response to be written before (A5)."""
    with pytest.warns(postlude.NoScopeWarning):
        call = defer(jobs.note, "one").durable()
    assert (call.state, jobs.seen, rows(file)) == ("done", [("one", 1)], [])
    assert call.durable().retry(3).timeout(1) is call  # all of it was kept


@pytest.mark.filterwarnings("ignore::postlude.NoScopeWarning")
@pytest.mark.parametrize("option", ["retry", "durable"])
@pytest.mark.parametrize("fn", [jobs.flaky, jobs.aflaky])
def test_failed_without_a_unit(worked: Path, option, fn) -> None:
    """What ran at once, in vain, goes on at the queue, and is no failure (A5, F1)."""
    call = defer(fn, "one")
    assert call.state == "failed"
    if option == "retry":
        call.retry(2, backoff=0.0)
    else:
        call.durable()
    assert call.state == "handed_over"
    assert list(failure_store().list()) == []
    with pytest.raises(QueueOptionError, match="Set it last"):
        call.retry(5)
    assert call.durable().cancel().state == "handed_over"
    until(lambda: jobs.seen == [("one", 1), ("one", 2)])
    assert jobs.ids["one"] == {call.id}
    postlude.drain()
    assert rows(worked) == []


@pytest.mark.filterwarnings("ignore::postlude.NoScopeWarning")
@pytest.mark.parametrize("option", ["retry", "durable"])
def test_failed_without_a_unit_on_a_loop(worked: Path, option) -> None:
    """There too: a sync call has failed already, an async one has not begun (A5)."""

    async def main() -> None:
        calls = defer(jobs.flaky, "one"), defer(jobs.aflaky, "two")
        for call in calls:
            if option == "retry":
                call.retry(2, backoff=0.0)
            else:
                call.durable()
        again = {("one", 2), ("two", 2)}
        await asyncio.to_thread(until, lambda: again <= set(jobs.seen))
        assert [call.state for call in calls] == ["handed_over"] * 2

    asyncio.run(main())
    assert list(failure_store().list()) == []


@pytest.mark.filterwarnings("ignore::postlude.NoScopeWarning")
def test_failed_without_a_unit_and_without_the_engine(file: Path) -> None:
    """Then the failure stays on record, and whoever asked hears of it (F1)."""
    postlude.configure(queue=f"sqlite:///{file.parent}/gone/queue.db")
    call = defer(jobs.boom, "one")
    with pytest.raises(QueueError, match="cannot be used now"):
        call.retry(2)
    assert call.state == "failed"
    assert [record.id for record in failure_store().list()] == [call.id]
