"""The application of `killing.app` in Django, with a database of its own.

`gunicorn killing.django_site:wsgi`, `uvicorn killing.django_site:asgi`.
"""

import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path

from killing.app import ask
from killing.calls import wait

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="none",  # noqa: S106 - no session is signed
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["postlude.integrations.django"],
    MIDDLEWARE=["postlude.integrations.django.PostludeMiddleware"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["KILL_DATABASE"],
            "ATOMIC_REQUESTS": "KILL_ATOMIC" in os.environ,
        }
    },
)
django.setup()


def defers(request: HttpRequest, option: str, function: str, name: str) -> HttpResponse:
    """Write an order, defer what is asked for, and wait where that is asked for."""
    with connection.cursor() as cursor:
        cursor.execute("create table if not exists orders (name text)")
        cursor.execute("insert into orders values (%s)", [name])
    ask(option, function, name, {})
    if "wait" in request.GET:
        wait("request")
    return HttpResponse("ok")


urlpatterns = [path("<option>/<function>/<name>", defers)]
wsgi, asgi = get_wsgi_application(), get_asgi_application()
