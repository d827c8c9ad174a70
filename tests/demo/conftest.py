"""The demo is no installed package: its folder is put on the path, and a sample run."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

from shop.customers import basket  # noqa: E402 (the path comes first)
from shop.journal import EFFECTS, OWN_WORK, Entry  # noqa: E402 (as above)
from shop.posting import Posted, Way  # noqa: E402 (as above)
from shop.results import Results, results  # noqa: E402 (as above)
from shop.settings import Settings  # noqa: E402 (as above)

STORY = (80, 400, 250, 350, 120)


@pytest.fixture
def post() -> Callable[[int, Way], Posted]:
    """Return a function that makes an order sent at the moment `id` seconds."""

    def make(id: int, way: Way) -> Posted:  # noqa: A002 (an order's field)
        waited = 1.2 if way == "before" else 0.08
        return Posted(id, way, basket(id), float(id), id + waited, counted=True)

    return make


@pytest.fixture
def steps() -> Callable[[Posted], dict[str, Entry]]:
    """Return a function that makes the steps of an order as in the story."""

    def make(order: Posted) -> dict[str, Entry]:
        entries, now = {}, order.sent
        for name, took in zip((OWN_WORK, *EFFECTS), STORY, strict=True):
            # Deferred ones begin 2 ms after the last byte, 80 ms after the start.
            began = now + (0.002 if order.way == "after" and name == EFFECTS[0] else 0)
            now = began + took / 1000
            entries[name] = Entry(name, order.id, began, now)
        return entries

    return make


@pytest.fixture
def measured(post, steps) -> Results:
    """Return the results of two orders each way, nothing lost."""
    posted = [post(1, "before"), post(2, "after"), post(3, "before"), post(4, "after")]
    return results(
        replace(Settings(), orders=2),
        posted,
        {order.id: steps(order) for order in posted},
        {effect: {1, 2, 3, 4} for effect in EFFECTS},
        [],
    )
