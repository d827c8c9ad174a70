"""The customer's page "my orders", kept in the cache until an order changes it."""

from __future__ import annotations

from functools import cache

import httpx
from sqlalchemy import select

from shop.addresses import addresses
from shop.orders import Order, sessions


@cache
def services() -> httpx.Client:
    """Return the one HTTP client of this process; its connections are kept alive."""
    # A proxy from the environment has no business between the shop and loopback.
    return httpx.Client(base_url=addresses().services, timeout=30, trust_env=False)


def page_of(email: str) -> str:
    """Return the cache's address of a customer's page."""
    return f"/cache/orders/{email}"


def orders_of(email: str) -> list[int]:
    """Return the numbers of a customer's orders, from the cache when it has them."""
    cached = services().get(page_of(email))
    if cached.status_code == httpx.codes.OK:
        return [int(number) for number in cached.json()]
    with sessions()() as session:
        numbers = list(session.scalars(select(Order.id).where(Order.email == email)))
    services().put(page_of(email), json=numbers).raise_for_status()
    return numbers
