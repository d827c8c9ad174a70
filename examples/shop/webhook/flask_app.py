"""The shop on Flask: an order and its webhook, without and with retries."""

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

from postlude import defer
from postlude.integrations.flask import Postlude
from shop.orders import Basket, place_order
from shop.pages import orders_of
from shop.webhook.delivery import PAUSES, deliver
from shop.webhook.handovers import note_handovers

app = Flask("shop")
Postlude(app)
note_handovers()


@app.post("/plain/orders")
def order_and_hope() -> ResponseReturnValue:
    """Take an order; its webhook is sent once."""
    order = place_order(Basket.from_json(request.data))
    defer(deliver, order.id)
    return jsonify(order), 201


@app.post("/retry/orders")
def order_and_retry() -> ResponseReturnValue:
    """Take an order; if its webhook fails, the queue has three more tries."""
    order = place_order(Basket.from_json(request.data))
    defer(deliver, order.id).retry(3, backoff=PAUSES)
    return jsonify(order), 201


@app.get("/orders")
def my_orders() -> ResponseReturnValue:
    """Show a customer's orders, from the cache."""
    return jsonify(orders_of(request.args["email"]))
