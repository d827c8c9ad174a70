"""The same order endpoint on Django, with sync side effects; settings and all."""

import json
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from benchmarks.apps import orders

COMMON = "django.middleware.common.CommonMiddleware"

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=(
        ["postlude.integrations.django.PostludeMiddleware", COMMON]
        if orders.DEFERS
        else [COMMON]
    ),
    ROOT_URLCONF="benchmarks.apps.django_order",
    SECRET_KEY="guards nothing",  # noqa: S106 - no session, nothing is signed
    USE_TZ=True,
)

if orders.DEFERS:
    from postlude import defer

    def follow_up(order: dict[str, Any]) -> None:
        """Defer what follows from an order."""
        defer(orders.wait_for_mail_server, order)
        defer(orders.wait_for_mail_server, order)
        defer(orders.wait_for_inventory, order)
        defer(orders.wait_for_inventory, order)

else:

    def follow_up(order: dict[str, Any]) -> None:
        """Do nothing: this is the app without."""


def create_order(request: HttpRequest) -> JsonResponse:
    """Take an order."""
    order = json.loads(request.body)
    orders.query()
    follow_up(order)
    return JsonResponse(orders.confirm(order), status=201)


def ran(_request: HttpRequest) -> HttpResponse:
    """Tell the count of side effects that have run."""
    return HttpResponse(str(orders.tick()))


urlpatterns = [path("orders", create_order), path("ran", ran)]
app = get_wsgi_application()
