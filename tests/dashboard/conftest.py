"""What the dashboard's tests share: a process as if new, a store, visitors."""

import logging
import sys
from pathlib import Path

import pytest

# The files that the tests of this folder share are a package beside them, and the
# importlib mode of pytest puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

import desk
from desk import chores

from postlude import _reporting, _settings, dashboard
from postlude.failures.sqlite import SQLiteFailureStore
from postlude.instrumentation import _instruments


@pytest.fixture(autouse=True)
def _own_process(monkeypatch):
    """Give each test a process that has kept and counted nothing."""
    monkeypatch.setattr(_reporting, "_store", None)
    monkeypatch.setattr(_reporting, "_writer", None)
    monkeypatch.setattr(_reporting, "_spec", None)
    monkeypatch.setattr(_instruments, "instruments", ())
    _settings.reset()
    chores.ran.clear()
    chores.release.clear()
    chores.begun.clear()
    yield
    chores.release.set()
    _settings.reset()


@pytest.fixture
def store(tmp_path):
    """A file, and nothing in it."""
    store = SQLiteFailureStore(tmp_path / "postlude.db")
    store.count()  # now it is there
    yield store
    store.close()


@pytest.fixture(params=["asgi", "wsgi"])
def protocol(request):
    """Each of the protocols."""
    return request.param


@pytest.fixture
def open_to(protocol):
    """Make a visitor of a dashboard: `open_to(store, authorize=..., mount=...)`."""

    def open_to(store=None, authorize=lambda _request: True, mount=""):
        app = getattr(dashboard, protocol)(store, authorize=authorize)
        over = desk.over_asgi if protocol == "asgi" else desk.over_wsgi
        return desk.Visitor(over(app), mount)

    return open_to


@pytest.fixture
def visitor(open_to, store):
    """Somebody who may see the dashboard over the store."""
    return open_to(store)


@pytest.fixture
def said(caplog):
    """What Postlude logged."""
    caplog.set_level(logging.DEBUG, logger="postlude")
    return caplog
