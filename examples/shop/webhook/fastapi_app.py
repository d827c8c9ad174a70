"""The shop on FastAPI: an order and its webhook, without and with retries."""

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from postlude import defer
from postlude.integrations.fastapi import install
from shop.orders import Basket, Receipt, place_order
from shop.pages import orders_of
from shop.webhook.delivery import PAUSES, deliver
from shop.webhook.handovers import note_handovers

app = FastAPI(title="Shop")
install(app)
note_handovers()


@app.post("/plain/orders", status_code=201)
async def order_and_hope(basket: Basket) -> Receipt:
    """Take an order; its webhook is sent once."""
    order = await run_in_threadpool(place_order, basket)
    defer(deliver, order.id)
    return order


@app.post("/retry/orders", status_code=201)
async def order_and_retry(basket: Basket) -> Receipt:
    """Take an order; if its webhook fails, the queue has three more tries."""
    order = await run_in_threadpool(place_order, basket)
    defer(deliver, order.id).retry(3, backoff=PAUSES)
    return order


@app.get("/orders")
def my_orders(email: str) -> list[int]:
    """Show a customer's orders, from the cache."""
    return orders_of(email)
