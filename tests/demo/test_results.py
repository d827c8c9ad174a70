import pytest

from shop.journal import EFFECTS
from shop.results import percentile, results
from shop.settings import Settings


def test_percentiles():
    """A percentile lies between its neighbours, and one value is all of them."""
    assert percentile([7.0], 0.95) == 7.0
    assert percentile([4, 1, 3, 2], 0.5) == 2.5
    assert percentile(range(101), 0.95) == 95


def test_the_numbers_of_the_story(measured):
    """Waits, speed-up and begins follow from the time stamps."""
    assert measured.waits["before"].p50 == pytest.approx(1200)
    assert measured.waits["after"].p50 == pytest.approx(80)
    assert measured.speed_up["p50"] == pytest.approx(15)
    mail, *_, cache = measured.effects
    assert mail.took == pytest.approx(400)
    assert mail.began == pytest.approx({"before": -1120, "after": 2})
    assert mail.earliest["after"] == pytest.approx(2)
    assert cache.began == pytest.approx({"before": -120, "after": 1002})
    assert [effect.arrived for effect in measured.effects] == [4, 4, 4, 4]


def test_a_picture_is_one_order(measured):
    """A picture has the steps of one order, counted from when it was sent."""
    picture = measured.pictures["after"]
    assert picture.last_byte == pytest.approx(80)
    assert [span.name for span in picture.spans] == ["own work", *EFFECTS]
    assert picture.spans[0].began == pytest.approx(0)
    assert picture.end == pytest.approx(1202)


def test_what_was_never_seen_has_no_numbers(post):
    """Side effects that all were lost leave no number, and no error either."""
    posted = [post(1, "before"), post(2, "after")]
    nothing = {effect: set() for effect in EFFECTS}
    lost = results(Settings(), posted, {1: {}, 2: {}}, nothing, ["lost"])
    assert {effect.took for effect in lost.effects} == {None}
    assert {effect.arrived for effect in lost.effects} == {0}
    assert lost.pictures["after"].spans == []
