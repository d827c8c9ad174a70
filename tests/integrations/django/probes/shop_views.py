"""The views of the Django project under test on servers."""

from collections.abc import Callable

from django.db import transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from planned_calls import plan
from reporting import INSTANCE


def _defer(request: HttpRequest) -> None:
    plan(request.GET.get("token", ""), request.GET.getlist("defer"))


def ready(request: HttpRequest) -> HttpResponse:
    """Say which process this is."""
    return HttpResponse("ready", headers={"x-instance": INSTANCE})


def sync(request: HttpRequest) -> HttpResponse:
    """Defer and answer, in a thread."""
    _defer(request)
    return HttpResponse("ordered")


async def asynchronous(request: HttpRequest) -> HttpResponse:
    """Defer and answer, on the loop if there is one."""
    _defer(request)
    return HttpResponse("ordered")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Defer and answer with a body of unknown length."""
    _defer(request)
    return StreamingHttpResponse(["one,", "two,", "three"])


def raises(request: HttpRequest) -> HttpResponse:
    """Defer and fail."""
    _defer(request)
    raise LookupError("the probe fails on purpose")


def rolled_back(request: HttpRequest) -> HttpResponse:
    """Defer and answer as if nothing were, but save nothing."""
    _defer(request)
    transaction.set_rollback(True)
    return HttpResponse("ordered")


def sync_middleware(get_response: Callable) -> Callable:
    """Make a middleware that makes Django leave the loop."""

    def middleware(request: HttpRequest) -> HttpResponse:
        return get_response(request)

    return middleware


urlpatterns = [
    path("ready", ready),
    path("sync", sync),
    path("async", asynchronous),
    path("stream", stream),
    path("raises", raises),
    path("rolled_back", rolled_back),
]
