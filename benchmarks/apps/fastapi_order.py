"""An order endpoint on FastAPI: two sync and two async side effects, or none."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.apps import orders


class Order(BaseModel):
    """What a customer sends."""

    sku: str
    quantity: int


app = FastAPI()

if orders.DEFERS:
    from postlude import defer
    from postlude.integrations.fastapi import install

    install(app)

    def follow_up(order: dict[str, Any]) -> None:
        """Defer what follows from an order."""
        defer(orders.wait_for_mail_server, order)
        defer(orders.wait_for_collector, order)
        defer(orders.wait_for_inventory, order)
        defer(orders.wait_for_cache, order)

else:

    def follow_up(order: dict[str, Any]) -> None:
        """Do nothing: this is the app without."""


@app.post("/orders", status_code=201)
async def create_order(order: Order) -> dict[str, Any]:
    """Take an order."""
    await orders.query_async()
    taken = order.model_dump()
    follow_up(taken)
    return orders.confirm(taken)


@app.get("/ran")
async def ran() -> int:
    """Tell the count of side effects that have run."""
    return orders.tick()
