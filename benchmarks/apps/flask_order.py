"""The same order endpoint on Flask, with sync side effects."""

from typing import Any

from flask import Flask, request

from benchmarks.apps import orders

app = Flask(__name__)

if orders.DEFERS:
    from postlude import defer
    from postlude.integrations.flask import Postlude

    Postlude(app)

    def follow_up(order: dict[str, Any]) -> None:
        """Defer what follows from an order."""
        defer(orders.wait_for_mail_server, order)
        defer(orders.wait_for_mail_server, order)
        defer(orders.wait_for_inventory, order)
        defer(orders.wait_for_inventory, order)

else:

    def follow_up(order: dict[str, Any]) -> None:
        """Do nothing: this is the app without."""


@app.post("/orders")
def create_order() -> tuple[dict[str, Any], int]:
    """Take an order."""
    order = request.get_json()
    orders.query()
    follow_up(order)
    return orders.confirm(order), 201


@app.get("/ran")
def ran() -> str:
    """Tell the count of side effects that have run."""
    return str(orders.tick())
