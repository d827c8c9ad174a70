"""The shop on Django, settings and all: the same order twice, waiting, deferring."""

from dataclasses import asdict

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.utils.crypto import get_random_string
from django.utils.deprecation import MiddlewareMixin
from django.views.decorators.http import require_GET, require_POST

from postlude import defer
from shop.effects import (
    record_event,
    refresh_page,
    send_confirmation,
    sync_inventory,
)
from shop.orders import Basket, OrderRefusedError, place_order
from shop.pages import orders_of

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    MIDDLEWARE=[
        "postlude.integrations.django.PostludeMiddleware",
        "django.middleware.common.CommonMiddleware",
        "shop.django_app.RefusalMiddleware",
    ],
    ROOT_URLCONF="shop.django_app",
    SECRET_KEY=get_random_string(50),
    USE_TZ=True,
)


@require_POST
def order_and_wait(request: HttpRequest) -> JsonResponse:
    """Take an order; the customer waits for all that follows from it."""
    order = place_order(Basket.from_json(request.body))
    send_confirmation(order.id)
    record_event(order.id)
    sync_inventory(order.id)
    refresh_page(order.id)
    return JsonResponse(asdict(order), status=201)


@require_POST
def order_and_defer(request: HttpRequest) -> JsonResponse:
    """Take an order; what follows from it begins when the customer has the answer."""
    order = place_order(Basket.from_json(request.body))
    defer(send_confirmation, order.id)
    defer(record_event, order.id)
    defer(sync_inventory, order.id)
    defer(refresh_page, order.id)
    return JsonResponse(asdict(order), status=201)


@require_GET
def my_orders(request: HttpRequest) -> JsonResponse:
    """Show a customer's orders, from the cache."""
    return JsonResponse(orders_of(request.GET["email"]), safe=False)


class RefusalMiddleware(MiddlewareMixin):
    """Tells the customer why the shop cannot take an order."""

    def process_exception(
        self, request: HttpRequest, error: Exception
    ) -> JsonResponse | None:
        """Answer 422 when the shop refused the order."""
        if isinstance(error, OrderRefusedError):
            return JsonResponse({"detail": str(error)}, status=422)
        return None


urlpatterns = [
    path("before/orders", order_and_wait),
    path("after/orders", order_and_defer),
    path("orders", my_orders),
]
app = get_wsgi_application()
