"""The shop's own work: take an order, put it into the database, find it again."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cache

from sqlalchemy import ForeignKey, create_engine, event
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    sessionmaker,
)

from shop.addresses import addresses
from shop.journal import OWN_WORK, noted

PRODUCTS = {
    "teapot": ("Teapot, cast iron", 48_00),
    "cup": ("Cup, hand-thrown", 16_50),
    "sencha": ("Sencha 煎茶, 100 g", 12_90),
    "matcha": ("Matcha 抹茶, 30 g", 24_75),
    "honey": ("Honey from Kraków, 250 g", 7_20),
}
VOUCHER = "SPRING"
"""The one voucher that the shop knows."""
ENFORCE = "PRAGMA foreign_keys = ON"


class Table(DeclarativeBase):
    """Base of the shop's tables."""


class Product(Table):
    """Something the shop sells."""

    __tablename__ = "product"
    sku: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    cents: Mapped[int]


class Voucher(Table):
    """What a customer may redeem with an order."""

    __tablename__ = "voucher"
    code: Mapped[str] = mapped_column(primary_key=True)


class OrderLine(Table):
    """So many of one product, at the price of the day."""

    __tablename__ = "order_line"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("customer_order.id"))
    sku: Mapped[str] = mapped_column(ForeignKey("product.sku"))
    quantity: Mapped[int]
    cents: Mapped[int]
    product: Mapped[Product] = relationship(lazy="joined")

    @property
    def title(self) -> str:
        """What the product is called."""
        return self.product.title

    @property
    def total(self) -> int:
        """Cents of this line."""
        return self.quantity * self.cents


class Order(Table):
    """Who ordered what."""

    __tablename__ = "customer_order"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str] = mapped_column(index=True)
    # Deferred: not before COMMIT the database looks whether there is such a voucher.
    voucher: Mapped[str | None] = mapped_column(
        ForeignKey("voucher.code", deferrable=True, initially="DEFERRED")
    )
    lines: Mapped[list[OrderLine]] = relationship(lazy="selectin")

    @property
    def total(self) -> int:
        """Cents of all lines."""
        return sum(line.total for line in self.lines)


@dataclass(frozen=True, slots=True)
class PlacedLine:
    """A line of an order as plain values."""

    sku: str
    title: str
    quantity: int
    total: int


@dataclass(frozen=True, slots=True)
class Placed:
    """An order as plain values: what a call may keep when the session is closed."""

    id: int
    name: str
    email: str
    total: int
    lines: tuple[PlacedLine, ...]

    @classmethod
    def of(cls, order: Order) -> Placed:
        """Copy an order that has a number."""
        lines = tuple(
            PlacedLine(line.sku, line.title, line.quantity, line.total)
            for line in order.lines
        )
        return cls(order.id, order.name, order.email, order.total, lines)


class OrderRefusedError(ValueError):
    """An order the shop cannot take; its text is for the customer."""


@dataclass(frozen=True, slots=True)
class Basket:
    """What a customer sends: who they are and how many of which product."""

    name: str
    email: str
    lines: dict[str, int]

    @classmethod
    def from_json(cls, body: bytes) -> Basket:
        """Read the body of a request.

        Raises:
            OrderRefusedError: when it is not a basket.
        """
        try:
            return cls(**json.loads(body))
        except (TypeError, ValueError) as error:
            raise OrderRefusedError(f"not a basket: {error}") from error


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the customer gets back at once."""

    id: int
    total: int
    """Cents."""


def euros(cents: int) -> str:
    """Write an amount the way the shop's customers read it."""
    return f"€ {cents // 100:,}.{cents % 100:02}"


@cache
def sessions() -> sessionmaker[Session]:
    """Open the shop's database; the first call stocks it."""
    engine = create_engine(addresses().database)
    if engine.dialect.name == "sqlite":
        # Only then does SQLite look whether what a row refers to exists.
        event.listen(engine, "connect", lambda raw, _: raw.execute(ENFORCE))
    Table.metadata.create_all(engine)
    factory = sessionmaker(engine, expire_on_commit=False)
    with factory.begin() as session:
        for sku, (title, cents) in PRODUCTS.items():
            session.merge(Product(sku=sku, title=title, cents=cents))
        session.merge(Voucher(code=VOUCHER))
    return factory


def place_order(basket: Basket) -> Receipt:
    """Check, price and store an order; this is the work a customer must wait for.

    Raises:
        OrderRefusedError: for an unknown product or a number nobody can order.
    """
    with noted(OWN_WORK) as entry:
        with sessions().begin() as session:
            order = add_order(session, basket)
        entry.order = order.id
        # The rest of the story's 80 ms: what the payment provider would take.
        spent = time.monotonic() - entry.began
        time.sleep(max(0.0, addresses().own_work - spent))
        return Receipt(order.id, order.total)


def add_order(session: Session, basket: Basket, voucher: str | None = None) -> Order:
    """Check and price an order and put it into a transaction that others end.

    Raises:
        OrderRefusedError: for an unknown product or a number nobody can order.
    """
    order = Order(name=basket.name, email=basket.email, voucher=voucher)
    order.lines = [
        _priced(session, sku, quantity) for sku, quantity in basket.lines.items()
    ]
    session.add(order)
    session.flush()
    return order


def find_order(order_id: int) -> Order:
    """Return an order with its lines and products.

    Raises:
        LookupError: when there is none of that number.
    """
    with sessions()() as session:
        if order := session.get(Order, order_id):
            return order
    raise LookupError(f"no order {order_id}")


def _priced(session: Session, sku: str, quantity: int) -> OrderLine:
    """Return one line of an order at today's price."""
    product = session.get(Product, sku)
    if product is None:
        known = ", ".join(PRODUCTS)
        raise OrderRefusedError(f"no product {sku!r}; the shop has {known}")
    if not isinstance(quantity, int) or not 1 <= quantity <= 99:
        raise OrderRefusedError(f"{quantity!r} of {sku!r}: order 1 to 99")
    return OrderLine(product=product, quantity=quantity, cents=product.cents)
