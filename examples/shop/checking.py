"""Was anything lost? Compare what was ordered with what the services received."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

from markupsafe import escape

from shop.journal import EFFECTS, Entry
from shop.mail import RAW, body, order_number, parse
from shop.orders import PRODUCTS, euros
from shop.posting import Posted

MAIL, EVENT, INVENTORY, CACHE = EFFECTS


def received(
    posted: list[Posted], ledger: dict[str, Any], pages: dict[int, list[int]]
) -> dict[str, set[int]]:
    """Return for each side effect the orders for which it arrived, once and right.

    `ledger` is what the services received; `pages` has, for each order, what its
    customer's cached page shows at the end.
    """
    mails, events = defaultdict(list), defaultdict(list)
    for mail in ledger["mails"]:
        mails[order_number(_message(mail))].append(mail)
    for event in ledger["events"]:
        events[event["order"]].append(event["total"])
    synced, purged = Counter(ledger["synced"]), Counter(ledger["purged"])
    right: dict[str, Callable[[Posted], bool]] = {
        MAIL: lambda order: (
            [mail_is_right(order, m) for m in mails[order.id]] == [True]
        ),
        EVENT: lambda order: events[order.id] == [order.total],
        INVENTORY: lambda order: synced[order.id] == 1,
        CACHE: lambda order: (
            purged[f"orders/{order.basket.email}"] == 1
            and pages[order.id] == [order.id]
        ),
    }
    return {
        effect: {order.id for order in posted if is_right(order)}
        for effect, is_right in right.items()
    }


def mail_is_right(order: Posted, mail: dict[str, Any]) -> bool:
    """Whether a received mail went to the customer and says what was ordered."""
    message = _message(mail)
    customer = (order.basket.name, order.basket.email)
    text, html = body(message, "plain"), body(message, "html")
    said = [order.basket.name, f"#{order.id}", euros(order.total)]
    said += [PRODUCTS[sku][0] for sku in order.basket.lines]
    return (
        mail["recipients"] == [order.basket.email]
        and [(to.display_name, to.addr_spec) for to in message["To"].addresses]
        == [customer]
        and all(words in text and escape(words) in html for words in said)
    )


def problems(
    posted: list[Posted],
    steps: dict[int, dict[str, Entry]],
    arrived: dict[str, set[int]],
    ledger: dict[str, Any],
) -> list[str]:
    """Return a sentence for each side effect that was lost or went wrong."""
    found = []
    for order in posted:
        for effect in EFFECTS:
            entry = steps[order.id].get(effect)
            if entry is None:
                found.append(f"order #{order.id}: no {effect} was seen")
            elif entry.error:
                found.append(f"order #{order.id}: {effect} failed: {entry.error}")
            elif order.id not in arrived[effect]:
                found.append(
                    f"order #{order.id}: {effect} did not arrive once and right"
                )
    ordered: Counter[str] = Counter()
    for order in posted:
        ordered.update(order.basket.lines)
    if ordered != Counter(ledger["shipped"]):
        shipped = f"{sum(ledger['shipped'].values())} of {ordered.total()} things"
        found.append(f"the inventory shipped {shipped} that were ordered")
    return found


def _message(mail: dict[str, Any]) -> EmailMessage:
    """Parse a received mail."""
    return parse(mail["raw"].encode(RAW))
