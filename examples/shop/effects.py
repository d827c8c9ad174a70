"""The four side effects of an order, as plain functions.

Nothing in here knows of a web framework or of `defer`: the same functions run while the
customer waits and after the customer has the answer.
"""

from __future__ import annotations

import smtplib

from shop.addresses import addresses
from shop.journal import EFFECTS, watched
from shop.mail import confirmation
from shop.orders import find_order
from shop.pages import page_of, services

MAIL, EVENT, INVENTORY, CACHE = EFFECTS


@watched(MAIL)
def send_confirmation(order_id: int) -> None:
    """Mail the customer what was ordered."""
    message = confirmation(find_order(order_id))
    # local_hostname: without it smtplib asks the resolver for this machine's name.
    with smtplib.SMTP(
        "127.0.0.1", addresses().smtp_port, local_hostname="localhost", timeout=30
    ) as smtp:
        smtp.send_message(message)


@watched(EVENT)
def record_event(order_id: int) -> None:
    """Tell analytics that an order was placed."""
    order = find_order(order_id)
    event = {"event": "order_placed", "order": order.id, "total": order.total}
    services().post("/events", json=event).raise_for_status()


@watched(INVENTORY)
def sync_inventory(order_id: int) -> None:
    """Tell the warehouse what has left the shelves."""
    lines = {line.sku: line.quantity for line in find_order(order_id).lines}
    services().put(f"/inventory/{order_id}", json=lines).raise_for_status()


@watched(CACHE)
def refresh_page(order_id: int) -> None:
    """Make the cache forget the customer's page, which lacks this order."""
    page = page_of(find_order(order_id).email)
    services().delete(page).raise_for_status()
