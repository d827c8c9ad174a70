"""How values are shown."""

import pytest

from postlude.dashboard import _text
from postlude.dashboard._fresh import Looks
from postlude.dashboard._spread import Spread


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 ms"),
        (0.00004, "under 0.1 ms"),
        (0.0004, "0.4 ms"),
        (0.0049, "4.9 ms"),
        (0.0099, "9.9 ms"),
        (0.00996, "10 ms"),
        (0.081, "81 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (1.2, "1.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (192, "3 min 12 s"),
        (3600, "1 h"),
        (11_040, "3 h 4 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_lengths_of_time(value, shown):
    """A length of time has the unit that people use."""
    assert _text.seconds(value) == shown


@pytest.mark.parametrize(
    ("passed", "shown"),
    [
        (-5, "just now"),
        (0.4, "just now"),
        (12, "12 s ago"),
        (59.6, "59 s ago"),
        (60, "1 min ago"),
        (3_700, "1 h ago"),
        (100_000, "27 h ago"),
        (200_000, "2 days ago"),
    ],
)
def test_how_long_ago(passed, shown):
    """The past is told in one unit; another clock's future is now."""
    assert _text.ago(1e9 - passed, 1e9) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1234, "1,234"), (20.57, "20.6"), (0.123, "0.12"), (100.4, "100")],
)
def test_numbers(value, shown):
    """Numbers have as many digits as matter."""
    assert _text.number(value) == shown


@pytest.mark.parametrize("value", [1e18, -1e18, float("nan"), float("inf")])
def test_a_moment_that_there_cannot_be(value):
    """A record changed by hand is shown, whatever its time."""
    assert "1970" in _text.moment(value)


def test_a_spread_says_what_half_and_most_take():
    """Quantiles are upper bounds of the classes; what is unknown is left out."""
    spread = Spread.of({"0.1": 50, "5": 45, "10": 4, "inf": 1, "what": 9})
    assert (spread.below(0.5), spread.below(0.95)) == ("100 ms", "5 s")
    assert spread.below(1) == "over 5 min"
    assert (spread.total, spread.over) == (100, 5)
    assert Spread.of({}).below(0.5) == "–"


def test_a_look_is_shared_and_grows_old():
    """What was just read is not read again; what took long is kept longer."""
    looks, times = Looks(), []
    for _ in range(3):
        looks.take("a", lambda: times.append(1), 60.0)
    assert len(times) == 1
    looks.forget()
    looks.take("a", lambda: times.append(1), 60.0)
    assert len(times) == 2
    looks.take("b", lambda: times.append(1), 0.0)
    looks.take("b", lambda: times.append(1), 0.0)
    assert len(times) >= 3
