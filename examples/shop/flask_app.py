"""The shop on Flask: the same order twice, first waiting, then deferring."""

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

from postlude import defer
from postlude.integrations.flask import Postlude
from shop.effects import (
    record_event,
    refresh_page,
    send_confirmation,
    sync_inventory,
)
from shop.orders import Basket, OrderRefusedError, place_order
from shop.pages import orders_of

app = Flask("shop")
Postlude(app)


@app.post("/before/orders")
def order_and_wait() -> ResponseReturnValue:
    """Take an order; the customer waits for all that follows from it."""
    order = place_order(Basket.from_json(request.data))
    send_confirmation(order.id)
    record_event(order.id)
    sync_inventory(order.id)
    refresh_page(order.id)
    return jsonify(order), 201


@app.post("/after/orders")
def order_and_defer() -> ResponseReturnValue:
    """Take an order; what follows from it begins when the customer has the answer."""
    order = place_order(Basket.from_json(request.data))
    defer(send_confirmation, order.id)
    defer(record_event, order.id)
    defer(sync_inventory, order.id)
    defer(refresh_page, order.id)
    return jsonify(order), 201


@app.get("/orders")
def my_orders() -> ResponseReturnValue:
    """Show a customer's orders, from the cache."""
    return jsonify(orders_of(request.args["email"]))


@app.errorhandler(OrderRefusedError)
def refuse(error: OrderRefusedError) -> ResponseReturnValue:
    """Tell the customer why the shop cannot take the order."""
    return jsonify(detail=str(error)), 422
