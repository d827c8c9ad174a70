"""The shop on Django with `ATOMIC_REQUESTS`, settings and all.

Its interface tells of every error in an envelope, under a 200, as many do.
"""

from dataclasses import asdict

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import IntegrityError, models
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.utils.crypto import get_random_string
from django.utils.deprecation import MiddlewareMixin
from django.views.decorators.http import require_http_methods
from sqlalchemy import make_url

from postlude import defer
from postlude.transactions import django as transactions
from shop.addresses import addresses
from shop.orders import PRODUCTS, Basket, Placed, PlacedLine, Receipt
from shop.pages import orders_of
from shop.rollback.effects import (
    record_event,
    refresh_page,
    send_confirmation,
    sync_inventory,
)
from shop.rollback.notes import note_drops, with_gates

URL = make_url(addresses().database)
GATES = with_gates()

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    DATABASES={
        "default": {
            "ENGINE": f"django.db.backends.{URL.get_backend_name()}".replace(
                "sqlite", "sqlite3"
            ),
            "NAME": URL.database,
            "HOST": URL.host or URL.query.get("host", ""),
            "PORT": URL.port or URL.query.get("port", ""),
            "USER": URL.username or "",
            "PASSWORD": URL.password or "",
            "ATOMIC_REQUESTS": True,
        }
    },
    LOGGING_CONFIG=None,  # errors go to the server's log, not by mail to admins
    MIDDLEWARE=[
        "postlude.integrations.django.PostludeMiddleware",
        "django.middleware.common.CommonMiddleware",
        "shop.rollback.django_app.EnvelopeMiddleware",
    ],
    ROOT_URLCONF="shop.rollback.django_app",
    SECRET_KEY=get_random_string(50),
    USE_TZ=True,
)
django.setup()
transactions.install()
note_drops()


class Order(models.Model):
    """Who ordered what; the shop has made the tables."""

    name = models.TextField()
    email = models.TextField()
    voucher = models.TextField()

    class Meta:
        app_label, db_table, managed = "shop", "customer_order", False


class OrderLine(models.Model):
    """So many of one product, at the price of the day."""

    order = models.ForeignKey(Order, models.DO_NOTHING)
    sku = models.TextField()
    quantity = models.IntegerField()
    cents = models.IntegerField()

    class Meta:
        app_label, db_table, managed = "shop", "order_line", False


def add_order(basket: Basket, voucher: str) -> Placed:
    """Put an order into the request's transaction."""
    order = Order(name=basket.name, email=basket.email, voucher=voucher)
    order.save()
    lines = []
    for sku, quantity in basket.lines.items():
        title, cents = PRODUCTS[sku]
        order.orderline_set.create(sku=sku, quantity=quantity, cents=cents)
        lines.append(PlacedLine(sku, title, quantity, quantity * cents))
    total = sum(line.total for line in lines)
    return Placed(order.pk, order.name, order.email, total, tuple(lines))


@require_http_methods(["GET", "POST"])
def orders(request: HttpRequest) -> JsonResponse:
    """Show a customer's orders, or take one and defer what follows from it."""
    if request.method == "GET":
        return JsonResponse(orders_of(request.GET["email"]), safe=False)
    order = add_order(Basket.from_json(request.body), request.GET["voucher"])
    # Here the gates cannot be left out: Postlude's middleware brings them.
    defer(send_confirmation, order).after_commit(GATES)
    defer(record_event, order).after_commit(GATES)
    defer(sync_inventory, order).after_commit(GATES)
    defer(refresh_page, order).after_commit(GATES)
    return JsonResponse(asdict(Receipt(order.id, order.total)))


class EnvelopeMiddleware(MiddlewareMixin):
    """Tells of what the database refused; the transaction is rolled back by then."""

    def process_exception(
        self, request: HttpRequest, error: Exception
    ) -> JsonResponse | None:
        """Answer 200 with an error inside."""
        if isinstance(error, IntegrityError):
            return JsonResponse({"ok": False, "error": "the order was not stored"})
        return None


urlpatterns = [path("orders", orders)]
app = get_wsgi_application()
