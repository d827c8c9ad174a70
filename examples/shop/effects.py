"""The four side effects of an order, as plain functions.

Nothing in here knows of a web framework or of `defer`: the same functions run while the
customer waits and after the customer has the answer.
"""

from __future__ import annotations

import smtplib

from shop.addresses import addresses
from shop.journal import EFFECTS, watched
from shop.mail import confirmation
from shop.orders import Order, Placed, find_order
from shop.pages import page_of, services

MAIL, EVENT, INVENTORY, CACHE = EFFECTS


@watched(MAIL)
def send_confirmation(order_id: int) -> None:
    """Mail the customer what was ordered."""
    send_mail(find_order(order_id))


@watched(EVENT)
def record_event(order_id: int) -> None:
    """Tell analytics that an order was placed."""
    post_event(find_order(order_id))


@watched(INVENTORY)
def sync_inventory(order_id: int) -> None:
    """Tell the warehouse what has left the shelves."""
    put_lines(find_order(order_id))


@watched(CACHE)
def refresh_page(order_id: int) -> None:
    """Make the cache forget the customer's page, which lacks this order."""
    drop_page(find_order(order_id))


# The same for an order that is at hand already.


def send_mail(order: Order | Placed) -> None:
    """Send the confirmation by SMTP."""
    message = confirmation(order)
    # local_hostname: without it smtplib asks the resolver for this machine's name.
    with smtplib.SMTP(
        "127.0.0.1", addresses().smtp_port, local_hostname="localhost", timeout=30
    ) as smtp:
        smtp.send_message(message)


def post_event(order: Order | Placed) -> None:
    """Post the event to analytics."""
    services().post("/events", json=event_of(order)).raise_for_status()


def event_of(order: Order | Placed) -> dict[str, object]:
    """Say that an order was placed."""
    return {"event": "order_placed", "order": order.id, "total": order.total}


def put_lines(order: Order | Placed) -> None:
    """Put the lines into the inventory."""
    lines = {line.sku: line.quantity for line in order.lines}
    services().put(f"/inventory/{order.id}", json=lines).raise_for_status()


def drop_page(order: Order | Placed) -> None:
    """Delete the page from the cache."""
    services().delete(page_of(order.email)).raise_for_status()
