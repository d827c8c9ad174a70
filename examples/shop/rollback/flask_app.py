"""The shop on Flask, with a session that the request's teardown commits.

Flask tears a request down when its view has answered: an error there changes no answer.
"""

from flask import Flask, g, jsonify, request
from flask.typing import ResponseReturnValue

from postlude import defer
from postlude.integrations.flask import Postlude
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

app = Flask("shop")
Postlude(app)
if with_gates():
    transactions.install()  # the one line that makes the difference
note_drops()


@app.before_request
def open_session() -> None:
    """Give a request its session."""
    g.session = sessions()()


@app.teardown_request
def end_session(error: BaseException | None) -> None:
    """Commit what the request did, unless it failed."""
    with g.pop("session") as session:
        if error is None:
            commit(session)


@app.post("/orders")
def order() -> ResponseReturnValue:
    """Take an order, and defer what follows from it."""
    basket = Basket.from_json(request.data)
    order = Placed.of(add_order(g.session, basket, request.args["voucher"]))
    defer(send_confirmation, order)
    defer(record_event, order)
    defer(sync_inventory, order)
    defer(refresh_page, order)
    return jsonify(Receipt(order.id, order.total))


@app.get("/orders")
def my_orders() -> ResponseReturnValue:
    """Show a customer's orders, from the cache."""
    return jsonify(orders_of(request.args["email"]))
