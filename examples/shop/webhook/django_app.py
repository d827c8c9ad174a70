"""The shop on Django, settings and all: an order and its webhook, with and without."""

from dataclasses import asdict

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.utils.crypto import get_random_string
from django.views.decorators.http import require_GET, require_POST

from postlude import defer
from shop.orders import Basket, place_order
from shop.pages import orders_of
from shop.webhook.delivery import PAUSES, deliver
from shop.webhook.handovers import note_handovers

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    LOGGING_CONFIG=None,  # errors go to the server's log, not by mail to admins
    MIDDLEWARE=[
        "postlude.integrations.django.PostludeMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
    ROOT_URLCONF="shop.webhook.django_app",
    SECRET_KEY=get_random_string(50),
    USE_TZ=True,
)
note_handovers()


@require_POST
def order_and_hope(request: HttpRequest) -> JsonResponse:
    """Take an order; its webhook is sent once."""
    order = place_order(Basket.from_json(request.body))
    defer(deliver, order.id)
    return JsonResponse(asdict(order), status=201)


@require_POST
def order_and_retry(request: HttpRequest) -> JsonResponse:
    """Take an order; if its webhook fails, the queue has three more tries."""
    order = place_order(Basket.from_json(request.body))
    defer(deliver, order.id).retry(3, backoff=PAUSES)
    return JsonResponse(asdict(order), status=201)


@require_GET
def my_orders(request: HttpRequest) -> JsonResponse:
    """Show a customer's orders, from the cache."""
    return JsonResponse(orders_of(request.GET["email"]), safe=False)


urlpatterns = [
    path("plain/orders", order_and_hope),
    path("retry/orders", order_and_retry),
    path("orders", my_orders),
]
app = get_wsgi_application()
