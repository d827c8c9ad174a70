"""The same shop without and with gates, and what became of two orders in each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from sqlalchemy import create_engine, func, select
from sqlalchemy.pool import NullPool

from shop.customers import basket
from shop.journal import EFFECTS
from shop.opening import Shop, open_shop
from shop.orders import VOUCHER, Basket, Order
from shop.posting import ask, effects_seen, orders_page, wait_until
from shop.rollback.databases import Database
from shop.rollback.notes import Drop, read_drops
from shop.settings import Settings

End = Literal["commits", "rolls back"]
VOUCHERS: dict[End, str] = {"commits": VOUCHER, "rolls back": "WINTER"}
"""The shop knows no WINTER: the database refuses the commit of that order."""
LEDGER = dict(zip(EFFECTS, ("mails", "events", "synced", "purged"), strict=True))
"""Where the services keep what they received, by side effect."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """One order, and what became of it."""

    database: str
    gates: bool
    transaction: End
    status: int
    stored: bool
    """Whether the database has it."""
    arrived: dict[str, int]
    """How many of each side effect the services received."""
    dropped: list[Drop]
    """What was recorded of its calls that did not run."""

    @property
    def effects(self) -> int:
        """How many side effects the services received in all."""
        return sum(self.arrived.values())

    def __str__(self) -> str:
        """Say which order this is."""
        which = "with" if self.gates else "without"
        return f"{self.database}, {which} gates, an order that {self.transaction}"


def order_both(settings: Settings, database: Database, gates: bool) -> list[Ordered]:
    """Open a new shop on a new database, post both orders, return what became of them.

    Raises:
        ShopError: when the shop does not open, or breaks down.
    """
    with (
        TemporaryDirectory(prefix="postlude-shop-") as name,
        database.fresh(Path(name)) as url,
        open_shop(
            settings,
            Path(name),
            database=url,
            package="shop.rollback",
            variables={"SHOP_GATES": str(int(gates))},
        ) as shop,
    ):
        seen, statuses = [_seen(shop)], []
        for number, voucher in enumerate(VOUCHERS.values()):
            statuses.append(_post(shop, basket(number), voucher))
            wait_until(
                lambda: effects_seen(shop) + len(_drops(shop)),
                len(EFFECTS) * (number + 1),
                settings.wait_s,
            )
            seen.append(_seen(shop))
        # Whatever the server still has to do, it does before it ends; that counts too.
        shop.server.stop()
        seen[-1] = _seen(shop)
        return [
            Ordered(
                database=database.title,
                gates=gates,
                transaction=end,
                status=statuses[number],
                stored=_is_stored(url, basket(number).email),
                arrived={
                    effect: seen[number + 1].arrived[effect] - before
                    for effect, before in seen[number].arrived.items()
                },
                dropped=seen[number + 1].dropped[len(seen[number].dropped) :],
            )
            for number, end in enumerate(VOUCHERS)
        ]


def _post(shop: Shop, customer: Basket, voucher: str) -> int:
    """Post an order; return the answer's status."""
    # The customer looks at the page first, so the cache has an old one to drop.
    orders_page(shop, customer.email)
    target = f"/orders?voucher={voucher}"
    return ask(shop, "POST", target, asdict(customer)).status


@dataclass(frozen=True, slots=True)
class _Seen:
    """What has been seen of all orders so far."""

    arrived: dict[str, int]
    dropped: list[Drop]


def _seen(shop: Shop) -> _Seen:
    ledger = shop.ledger()
    arrived = {effect: len(ledger[key]) for effect, key in LEDGER.items()}
    return _Seen(arrived, _drops(shop))


def _drops(shop: Shop) -> list[Drop]:
    return read_drops(shop.journal.parent)


def _is_stored(url: str, email: str) -> bool:
    """Look a customer's order up in the database itself."""
    engine = create_engine(url, poolclass=NullPool)
    orders = select(func.count()).where(Order.email == email)
    with engine.connect() as connection:
        return connection.scalar(orders) == 1


def problems(ordered: Ordered) -> list[str]:
    """Return a sentence for everything that is not as it must be."""
    commits = ordered.transaction == "commits"
    runs = commits or not ordered.gates
    each = ", not one of each" if runs else ""
    rolled_back = [drop for drop in ordered.dropped if drop.reason == "rollback"]
    checks = {
        f"was answered with {ordered.status}, not with 200": ordered.status == 200,
        f"is {'' if ordered.stored else 'not '}stored": ordered.stored == commits,
        f"has {ordered.effects} of {len(EFFECTS) * runs} side effects{each}": (
            set(ordered.arrived.values()) == {int(runs)}
        ),
        f"has {len(ordered.dropped)} of {len(EFFECTS) * (not runs)} calls dropped": (
            len(ordered.dropped) == len(EFFECTS) * (not runs)
        ),
        "has calls dropped for another reason than a rollback": (
            rolled_back == ordered.dropped
        ),
        "has drops that name no database": all(d.database for d in ordered.dropped),
    }
    return [
        f"{ordered}: it {wrong}" for wrong, is_right in checks.items() if not is_right
    ]
