"""Post orders both ways and wait until everything that follows has been seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from shop.customers import basket
from shop.journal import EFFECTS, Entry, read
from shop.opening import Shop, ShopError
from shop.orders import PRODUCTS, Basket
from shop.wire import Answer, exchange

Way = Literal["before", "after"]
WAYS: tuple[Way, Way] = ("before", "after")

JOURNAL_SECONDS = 0.05
"""How often to look into the journal: often enough for a smooth progress bar."""


@dataclass(frozen=True, slots=True)
class Posted:
    """One order that the shop has taken."""

    id: int
    way: str
    basket: Basket
    sent: float
    last_byte: float
    """Both in seconds of `time.monotonic`."""
    counted: bool
    """False for the first order each way: it warms the shop up."""

    @property
    def total(self) -> int:
        """Cents the customer expects to pay, whatever the shop says."""
        return sum(PRODUCTS[sku][1] * count for sku, count in self.basket.lines.items())

    @property
    def waited(self) -> float:
        """Seconds the customer waited."""
        return self.last_byte - self.sent


def post_orders(shop: Shop, orders: int) -> Iterator[Posted]:
    """Post so many orders each way, alternating, one at a time; yield each one.

    Raises:
        ShopError: when the shop does not take one.
    """
    for number in range(orders + 1):
        for at, way in enumerate(WAYS):
            wanted = basket(2 * number + at)
            # The customer looks at the page first, so the cache has an old one to drop.
            orders_page(shop, wanted.email)
            yield post(shop, way, wanted, counted=number > 0)


def effects_seen(shop: Shop) -> int:
    """Return how many side effects have ended so far."""
    return sum(entry.step in EFFECTS for entry in read(shop.journal))


def wait_until(
    seen: Callable[[], int],
    expected: int,
    seconds: float,
    tell: Callable[[int], None] = lambda _: None,
) -> None:
    """Return when so many have been seen, or no new one came for so long.

    `tell` gets their number after each look.
    """
    deadline, count = time.monotonic() + seconds, -1
    while count < expected and time.monotonic() < deadline:
        now = seen()
        if now > count:
            count, deadline = now, time.monotonic() + seconds
        tell(now)
        time.sleep(JOURNAL_SECONDS)


def steps_of(shop: Shop, posted: list[Posted]) -> dict[int, dict[str, Entry]]:
    """Return for each order its steps by name."""
    steps: dict[int, dict[str, Entry]] = {order.id: {} for order in posted}
    for entry in read(shop.journal):
        if entry.order in steps:
            steps[entry.order][entry.step] = entry
    return steps


def orders_page(shop: Shop, email: str) -> list[int]:
    """Return the numbers on a customer's page, which the shop caches."""
    answer = ask(shop, "GET", f"/orders?email={quote(email)}")
    numbers: list[int] = json.loads(answer.body)
    return numbers


def post(shop: Shop, way: str, wanted: Basket, *, counted: bool = True) -> Posted:
    """Post one order.

    Raises:
        ShopError: when the shop does not take it.
    """
    payload = {"name": wanted.name, "email": wanted.email, "lines": wanted.lines}
    answer = ask(shop, "POST", f"/{way}/orders", payload)
    receipt = json.loads(answer.body)
    return Posted(receipt["id"], way, wanted, answer.sent, answer.last_byte, counted)


def ask(shop: Shop, method: str, target: str, payload: object = None) -> Answer:
    """Send a request that the shop must answer with success.

    Raises:
        ShopError: when it does not.
    """
    try:
        answer = exchange(shop.port, method, target, payload)
        happened = f"{method} {target} was answered with status {answer.status}."
        if answer.status < 400:
            return answer
    except OSError as error:
        happened = f"{method} {target} got no answer: {error}."
    # The answer may be here before the log says why: a stopped server has said all.
    shop.server.stop()
    raise ShopError(
        happened,
        "a side effect failed while the customer waited, or the server broke down.",
        "the log below says which; then run the same command again.",
        shop.server.log_tail(),
    )
