"""The pages of a Django project with the admin, and a page that defers."""

from django.contrib import admin
from django.http import HttpResponse
from django.urls import path

from postlude import defer

mended = False


def fail(number):
    """Fail, until somebody has mended it."""
    if not mended:
        raise ValueError(f"<b>no</b> {number}")


def order(request):
    """Answer, and defer what fails."""
    defer(fail, 7)
    return HttpResponse("ok")


urlpatterns = [path("admin/", admin.site.urls), path("order", order)]
