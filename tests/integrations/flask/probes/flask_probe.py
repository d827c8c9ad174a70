"""The Flask application under test on a server."""

from flask import Flask, Response, current_app, request

from planned_calls import plan
from postlude import defer
from postlude.integrations.flask import Postlude
from reporting import INSTANCE, report

app = Flask(__name__)
Postlude(app)


def _defer() -> None:
    token = request.args.get("token", "")
    plan(token, request.args.getlist("defer"))
    defer(lambda: report(token, "application", current_app.name)).always()


@app.get("/ready")
def ready() -> Response:
    """Say which process this is."""
    return Response("ready", headers={"x-instance": INSTANCE})


@app.get("/order")
def order() -> str:
    """Defer and answer."""
    _defer()
    return "ordered"


@app.get("/stream")
def stream() -> Response:
    """Defer and answer with a body of unknown length."""
    _defer()
    return Response(part for part in ("one,", "two,", "three"))


@app.get("/raises")
def raises() -> str:
    """Defer and fail."""
    _defer()
    raise LookupError("the probe fails on purpose")
