"""The shop on FastAPI: the same order twice, first waiting, then deferring."""

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from postlude import defer
from postlude.integrations.fastapi import install
from shop.effects import send_confirmation
from shop.effects_async import record_event, refresh_page, sync_inventory
from shop.orders import Basket, OrderRefusedError, Receipt, place_order
from shop.pages import orders_of

app = FastAPI(title="Shop")
install(app)


@app.post("/before/orders", status_code=201)
async def order_and_wait(basket: Basket) -> Receipt:
    """Take an order; the customer waits for all that follows from it."""
    order = await run_in_threadpool(place_order, basket)
    await run_in_threadpool(send_confirmation, order.id)
    await record_event(order.id)
    await sync_inventory(order.id)
    await refresh_page(order.id)
    return order


@app.post("/after/orders", status_code=201)
async def order_and_defer(basket: Basket) -> Receipt:
    """Take an order; what follows from it begins when the customer has the answer."""
    order = await run_in_threadpool(place_order, basket)
    defer(send_confirmation, order.id)
    defer(record_event, order.id)
    defer(sync_inventory, order.id)
    defer(refresh_page, order.id)
    return order


@app.get("/orders")
def my_orders(email: str) -> list[int]:
    """Show a customer's orders, from the cache."""
    return orders_of(email)


@app.exception_handler(OrderRefusedError)
async def refuse(request: Request, error: OrderRefusedError) -> JSONResponse:
    """Tell the customer why the shop cannot take the order."""
    return JSONResponse({"detail": str(error)}, status_code=422)
