from collections import Counter
from email import policy

import pytest

from shop.checking import problems, received
from shop.journal import EFFECTS
from shop.mail import RAW, confirmation
from shop.orders import PRODUCTS, Order, OrderLine, Product

MAIL, EVENT, INVENTORY, CACHE = EFFECTS


def as_order(posted):
    """Return the database's view of what a customer ordered."""
    lines = []
    for sku, quantity in posted.basket.lines.items():
        title, cents = PRODUCTS[sku]
        product = Product(sku=sku, title=title, cents=cents)
        lines.append(OrderLine(product=product, quantity=quantity, cents=cents))
    name, email = posted.basket.name, posted.basket.email
    return Order(id=posted.id, name=name, email=email, lines=lines)


@pytest.fixture
def posted(post):
    """Return two orders."""
    return [post(1, "before"), post(2, "after")]


@pytest.fixture
def ledger(posted):
    """Return what the services have when all went well."""
    shipped = Counter()
    for order in posted:
        shipped.update(order.basket.lines)
    return {
        "mails": [
            {
                "recipients": [order.basket.email],
                "raw": confirmation(as_order(order))
                .as_bytes(policy=policy.SMTP)
                .decode(RAW),
            }
            for order in posted
        ],
        "events": [{"order": order.id, "total": order.total} for order in posted],
        "synced": [order.id for order in posted],
        "shipped": dict(shipped),
        "purged": [f"orders/{order.basket.email}" for order in posted],
    }


@pytest.fixture
def check(posted, ledger, steps):
    """Return a function that says what is wrong with the ledger as it is now."""

    def run(pages=None, seen=None):
        arrived = received(posted, ledger, pages or {1: [1], 2: [2]})
        seen = seen or {order.id: steps(order) for order in posted}
        return problems(posted, seen, arrived, ledger)

    return run


def test_nothing_lost(check):
    """When every service has everything once and right, nothing is wrong."""
    assert check() == []


@pytest.mark.parametrize(
    ("key", "effect"),
    [("mails", MAIL), ("events", EVENT), ("synced", INVENTORY), ("purged", CACHE)],
)
def test_lost_and_doubled(check, ledger, key, effect):
    """A side effect that came twice, or never, is named with its order."""
    said = f"order #2: {effect} did not arrive once and right"
    last = ledger[key][-1]
    ledger[key].append(last)
    assert check() == [said]
    ledger[key].remove(last)
    ledger[key].remove(last)
    assert check() == [said]


def test_wrong_contents(check, ledger):
    """A mail to somebody else, a wrong total and a stale page are found out."""
    first, second = ledger["mails"]
    first["recipients"], second["recipients"] = (
        second["recipients"],
        first["recipients"],
    )
    ledger["events"][0]["total"] += 1
    assert check(pages={1: [], 2: [2]}) == [
        f"order #1: {MAIL} did not arrive once and right",
        f"order #1: {EVENT} did not arrive once and right",
        f"order #1: {CACHE} did not arrive once and right",
        f"order #2: {MAIL} did not arrive once and right",
    ]


def test_a_mail_with_another_total(check, ledger, posted):
    """A mail that says another total than the customer expects is not right."""
    order = as_order(posted[0])
    order.lines[0].cents += 1
    raw = confirmation(order).as_bytes(policy=policy.SMTP)
    ledger["mails"][0]["raw"] = raw.decode(RAW)
    assert check() == [f"order #1: {MAIL} did not arrive once and right"]


def test_the_stock_is_counted(check, ledger):
    """The inventory must have shipped exactly what was ordered."""
    sku = next(iter(ledger["shipped"]))
    ordered = sum(ledger["shipped"].values())
    ledger["shipped"][sku] -= 1
    assert check() == [
        f"the inventory shipped {ordered - 1} of {ordered} things that were ordered"
    ]


def test_steps_that_failed_or_never_began(check, posted, steps):
    """A side effect that raised, or never began, is a problem by itself."""
    seen = {order.id: steps(order) for order in posted}
    del seen[1][EVENT]
    seen[2][CACHE].error = "ValueError()"
    assert check(seen=seen) == [
        f"order #1: no {EVENT} was seen",
        f"order #2: {CACHE} failed: ValueError()",
    ]
