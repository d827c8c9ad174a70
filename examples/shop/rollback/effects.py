"""The four side effects of an order, told what they need instead of its number.

So they do what the mails and webhooks of many shops do: they tell the world of an order
without a look whether it exists.
"""

from __future__ import annotations

from shop.effects import (
    CACHE,
    EVENT,
    INVENTORY,
    MAIL,
    drop_page,
    post_event,
    put_lines,
    send_mail,
)
from shop.journal import noted
from shop.orders import Placed


def send_confirmation(order: Placed) -> None:
    """Mail the customer what was ordered."""
    with noted(MAIL, order.id):
        send_mail(order)


def record_event(order: Placed) -> None:
    """Tell analytics that an order was placed."""
    with noted(EVENT, order.id):
        post_event(order)


def sync_inventory(order: Placed) -> None:
    """Tell the warehouse what has left the shelves."""
    with noted(INVENTORY, order.id):
        put_lines(order)


def refresh_page(order: Placed) -> None:
    """Make the cache forget the customer's page, which lacks this order."""
    with noted(CACHE, order.id):
        drop_page(order)
