"""Three of the side effects once more, as coroutine functions for FastAPI.

The mail has no twin here: `smtplib` blocks, and `defer` gives it a thread.
"""

from __future__ import annotations

from asyncio import to_thread
from functools import cache

import httpx

from shop.addresses import addresses
from shop.effects import CACHE, EVENT, INVENTORY, event_of
from shop.journal import watched
from shop.orders import find_order
from shop.pages import page_of


@cache
def services() -> httpx.AsyncClient:
    """Return the one asynchronous HTTP client of this process."""
    return httpx.AsyncClient(base_url=addresses().services, timeout=30, trust_env=False)


@watched(EVENT)
async def record_event(order_id: int) -> None:
    """Tell analytics that an order was placed."""
    order = await to_thread(find_order, order_id)
    (await services().post("/events", json=event_of(order))).raise_for_status()


@watched(INVENTORY)
async def sync_inventory(order_id: int) -> None:
    """Tell the warehouse what has left the shelves."""
    order = await to_thread(find_order, order_id)
    lines = {line.sku: line.quantity for line in order.lines}
    (await services().put(f"/inventory/{order_id}", json=lines)).raise_for_status()


@watched(CACHE)
async def refresh_page(order_id: int) -> None:
    """Make the cache forget the customer's page, which lacks this order."""
    order = await to_thread(find_order, order_id)
    (await services().delete(page_of(order.email))).raise_for_status()
