"""The webhook: a plain function, for both ways to send it and for the workers."""

from __future__ import annotations

import os
from functools import cache

import httpx

from postlude import current_call
from shop.effects import event_of
from shop.journal import watched
from shop.orders import find_order

WEBHOOK = "webhook"
KEY = "Idempotency-Key"
DOWN = float(os.environ.get("SHOP_DOWN", "5"))
"""Seconds that the receiver may be down."""
PAUSES = (DOWN + 1, 2.0, 4.0)
"""Seconds before the second run, the third and the fourth.

The first pause is longer than the receiver is down, so whatever its downtime costs,
three runs are left for its bad luck.
"""


@watched(WEBHOOK)
def deliver(order_id: int) -> None:
    """Tell the customer's system that the order was placed.

    The id is the same in every run, so the receiver can tell a second delivery from a
    second order.
    """
    order, call = find_order(order_id), current_call()
    headers = {} if call is None else {KEY: call.id}
    receiver().post("/orders", json=event_of(order), headers=headers).raise_for_status()


@cache
def receiver() -> httpx.Client:
    """Return the HTTP client of this process; each delivery has its own connection."""
    return httpx.Client(
        base_url=os.environ["SHOP_RECEIVER"],
        limits=httpx.Limits(max_keepalive_connections=0),
        timeout=10,
        trust_env=False,
    )
