"""Customers for the shop, with the names that real customers have."""

from __future__ import annotations

from itertools import islice

from shop.orders import PRODUCTS, Basket

NAMES = (
    "Zoë Ångström",
    "Łukasz Żak",
    "Nguyễn Thị Hoa",
    "Đorđe Šimić",
    "María José Núñez",
    "François Lefèvre",
    "佐藤 花子",
    "Ολυμπία Παπαδάκη",
    "Ірина Ґалаґан",
    "O'Neill & Söhne",
)


def basket(number: int) -> Basket:
    """Return the basket of the customer with this number; each is somebody else."""
    first = number % len(PRODUCTS)
    skus = islice([*PRODUCTS, *PRODUCTS], first, first + 1 + number % 3)
    return Basket(
        name=NAMES[number % len(NAMES)],
        email=f"customer-{number}@example.org",
        lines={sku: 1 + (number + at) % 4 for at, sku in enumerate(skus)},
    )
