"""The shop under WSGI: `gunicorn shop.wsgi:app`."""

import os

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from postlude import dashboard, defer
from postlude.integrations.flask import Postlude
from shop.work import rebuild, send_receipt

shop = Flask(__name__)
Postlude(shop)


@shop.post("/orders/<number>")
def order(number):
    """Take an order."""
    defer(send_receipt, number)
    return str(os.getpid())


@shop.post("/reports/<number>")
def report(number):
    """Begin something that takes long."""
    defer(rebuild, number)
    return str(os.getpid())


def is_staff(environ):
    """Look at a cookie, as a session would be looked at."""
    return "who=staff" in environ.get("HTTP_COOKIE", "")


app = DispatcherMiddleware(
    shop, {"/staff/postlude": dashboard.wsgi(authorize=is_staff)}
)
