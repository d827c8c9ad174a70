"""E4: `postlude stats`: how often, how long, and how much time users do not wait."""

import time

import pytest

from postlude.cli._numbers import Numbers
from postlude.failures import Batch, ProcessRecord, Tally
from postlude.failures.sqlite import SQLiteFailureStore

NOW = 1_800_000_000.0
MINUTE = int(NOW // 60)


@pytest.fixture
def tallies():
    """Numbers of two functions, and of one route that deferred one of them."""
    minute = MINUTE - 9
    return [
        Tally(minute, "ended", "shop:send", "POST /orders", "done", 90, 99.0),
        Tally(minute + 1, "ended", "shop:send", "POST /orders", "failed", 10, 1.0),
        Tally(minute, "ended", "shop:push", "", "dropped:rollback", 3, 0.0),
        Tally(minute, "duration", "shop:send", "", "0.1", 49, 0.0),
        Tally(minute, "duration", "shop:send", "", "1", 45, 0.0),
        Tally(minute, "duration", "shop:send", "", "inf", 6, 0.0),
        Tally(minute, "delay", "shop:send", "", "0.001", 100, 0.05),
        Tally(minute, "unit", "", "POST /orders", "", 50, 4.05),
        Tally(minute, "unit", "", "GET /", "", 50, 4.0),
        Tally(minute, "busy", "shop:send", "", "thread", 100, 100.0),
        Tally(minute, "beat", "", "", "all", 5, 0.0),
    ]


def test_as_json(tallies):
    """Rates, percentiles as upper bounds, and what each user is spared (E4)."""
    found = Numbers(tallies, NOW - 86_400, NOW).as_json()
    assert found["minutes"] == pytest.approx(9)
    send, push = found["functions"]
    assert send == {
        "function": "shop:send",
        "calls": 100,
        "per_minute": pytest.approx(100 / 9),
        "states": {"done": 90, "failed": 10},
        "duration": {"p50_at_most": 1.0, "p95_at_most": None},
        "start_delay": {"p50_at_most": 0.001, "p95_at_most": 0.001},
    }
    assert push["states"] == {"dropped:rollback": 3}
    assert push["duration"] is None
    (route,) = found["routes"]
    assert route == {
        "route": "POST /orders",
        "units": 50,
        "waits": pytest.approx(0.081),
        "instead_of": pytest.approx(2.081),
        "saved": pytest.approx(100),
    }


def test_the_window_begins_with_the_question():
    """A rate is by the time that was asked for, if the numbers are older (E4)."""
    tallies = [Tally(MINUTE - 600, "ended", "a:b", "", "done", 60, 0.0)]
    assert Numbers(tallies, NOW - 3_600, NOW).minutes == pytest.approx(60)
    assert Numbers([], NOW - 3_600, NOW).minutes == 1


def test_the_table(project):
    """The table has the numbers, and what runs now in all processes (E4)."""
    minute = int(time.time() // 60)
    store = SQLiteFailureStore(project.folder / "postlude.db")
    process = ProcessRecord(
        "vm:1:1", "vm", 1, 1.0, time.time(), 4, (("a", "b", 1.0),), {"threads": 16.0}
    )
    store.write(
        Batch(
            (),
            (
                Tally(minute, "ended", "shop:send", "POST /orders", "done", 90, 99.0),
                Tally(minute, "ended", "shop:send", "POST /orders", "failed", 10, 1.0),
                Tally(minute, "duration", "shop:send", "", "1", 94, 0.0),
                Tally(minute, "duration", "shop:send", "", "inf", 6, 0.0),
                Tally(minute, "delay", "shop:send", "", "0.001", 100, 0.05),
                Tally(minute, "unit", "", "POST /orders", "", 50, 4.05),
            ),
            process,
        )
    )
    store.close()
    for width in ("60", "120"):
        done = project.postlude("stats", COLUMNS=width)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Now: 1 process, 1 call running, 4 pending." in done.stdout
        for text in ("90 done", "10 failed", "≤ 1 s", "> 5 min", "81 ms", "2.08 s"):
            assert text in done.stdout
    found = project.json("stats", "--since", "2h")
    assert set(found) == {"since", "now", "minutes", "functions", "routes"}
    assert found["now"] == {"processes": 1, "running": 1, "pending": 4}
    assert project.json("stats", "--since", "2100-01-01")["functions"] == []
    assert "No calls" in project.postlude("stats", "--since", "2100-01-01").stdout
