"""The shop on FastAPI, with the session that its documentation shows.

The code after a dependency's `yield` runs when the answer has left; so does the commit.
"""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy.orm import Session

from postlude import defer
from postlude.integrations.fastapi import install
from postlude.transactions import sqlalchemy as transactions
from shop.orders import Basket, Placed, Receipt, add_order, sessions
from shop.pages import orders_of
from shop.rollback.effects import (
    record_event,
    refresh_page,
    send_confirmation,
    sync_inventory,
)
from shop.rollback.ending import commit
from shop.rollback.notes import note_drops, with_gates

app = FastAPI(title="Shop")
install(app)
if with_gates():
    transactions.install()  # the one line that makes the difference
note_drops()


def shop_session() -> Iterator[Session]:
    """Give a request its session, and commit what it did."""
    with sessions()() as session:
        yield session
        commit(session)


@app.post("/orders")
def order(
    basket: Basket, voucher: str, session: Annotated[Session, Depends(shop_session)]
) -> Receipt:
    """Take an order, and defer what follows from it."""
    order = Placed.of(add_order(session, basket, voucher))
    defer(send_confirmation, order)
    defer(record_event, order)
    defer(sync_inventory, order)
    defer(refresh_page, order)
    return Receipt(order.id, order.total)


@app.get("/orders")
def my_orders(email: str) -> list[int]:
    """Show a customer's orders, from the cache."""
    return orders_of(email)
