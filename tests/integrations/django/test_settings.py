"""`POSTLUDE` in Django's settings: one settings object, and errors at the start."""

import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.test import Client

from postlude import SettingsError, configure, settings

pytestmark = pytest.mark.usefixtures("fresh_settings")

start = pytest.mark.parametrize("start", [get_wsgi_application, get_asgi_application])


def view(request):
    """Answer."""
    return HttpResponse("ok")


@start
def test_settings_are_taken_over(start, site):
    """`POSTLUDE` in Django's settings is in force when the application is made."""
    site(view, POSTLUDE={"THREADS": 3, "GRACE": 1.5, "STRICT": True})
    start()
    assert (settings().threads, settings().grace, settings().strict) == (3, 1.5, True)


@start
def test_the_environment_wins_over_djangos_settings(start, site, monkeypatch):
    """A value of the environment wins, and one of `configure` over both."""
    monkeypatch.setenv("POSTLUDE_THREADS", "5")
    monkeypatch.setenv("POSTLUDE_CONCURRENCY", "5")
    site(view, POSTLUDE={"THREADS": 3, "CONCURRENCY": 3, "MAX_PENDING": 3})
    configure(concurrency=7)
    start()
    found = settings()
    assert (found.threads, found.concurrency, found.max_pending) == (5, 7, 3)


@start
@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"THREDS": 3}, "threds"),
        ({"THREADS": 0}, "threads"),
        ({"GRACE": "soon"}, "grace"),
        ({"OVERFLOW": "forget"}, "overflow"),
    ],
)
def test_a_bad_setting_is_an_error_at_the_start(values, name, start, site):
    """An unknown or impossible setting stops the start, and says which and why."""
    site(view, POSTLUDE=values)
    with pytest.raises(SettingsError, match="the Django setting POSTLUDE") as refused:
        start()
    assert name in str(refused.value)


def test_no_settings_are_needed(site):
    """Without `POSTLUDE` the defaults are in force."""
    site(view)
    before = settings()
    assert Client().get("/").content == b"ok"
    assert settings() == before
