"""Flask: the extension `Postlude`, with `init_app`.

```python
from flask import Flask
from postlude import defer
from postlude.integrations.flask import Postlude

app = Flask(__name__)
Postlude(app)

@app.post("/orders")
def create_order():
    defer(print, "after the response")
    return {"ok": True}
```
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from flask import (
    Flask,
    current_app,
    got_request_exception,
    has_app_context,
    has_request_context,
    request_started,
)
from flask.globals import request_ctx

from postlude import _settings
from postlude._scope import current
from postlude.exceptions import TOO_LATE, TooLateError
from postlude.wsgi import Exchange, PostludeMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

__all__ = ["Postlude"]


class Postlude:
    """Makes every request of a Flask application a unit of work.

    Its calls run in a fresh application context of their request's app, so that
    `current_app`, `g` and extensions work in them and are torn down after each.
    """

    def __init__(self, app: Flask | None = None) -> None:
        """Install on *app* now, or later with `init_app`."""
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Install on *app*; a second time changes nothing (A8).

        Raises:
            SettingsError: a setting is unknown or impossible.
        """
        if "postlude" in app.extensions:
            return
        app.extensions["postlude"] = self
        middleware = PostludeMiddleware(app.wsgi_app, around=_AppContext(app))
        app.wsgi_app = middleware  # type: ignore[method-assign]  # Flask's documented way
        got_request_exception.connect(_note_exception, app)
        _look_at_debug_once(app)


def _look_at_debug_once(app: Flask) -> None:
    def look(app: Flask, **_extra: Any) -> None:
        # The first request is enough. A receiver of its own for each app, as blinker
        # keeps one that was disconnected from one app only, and asks at each request.
        request_started.disconnect(look)
        if app.debug:  # `app.run(debug=True)` says so after the installation
            _settings.in_development("Flask's debug mode")

    request_started.connect(look, app, weak=False)


def _note_exception(_app: Flask, exception: BaseException, **_extra: Any) -> None:
    scope = current.get()
    if scope is not None:
        scope._exception = exception


class _AppContext:
    """A fresh application context around each call (D4)."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def for_retry(self) -> _AppContext:
        """Give what belongs around a call that is run again: the same."""
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _AppContext)

    def __hash__(self) -> int:
        return hash(_AppContext)

    @contextmanager
    def sync(self) -> Generator[None]:
        """Enter the context of the app in which the call was deferred."""
        proxy: Any = current_app  # it is annotated as the Flask that it stands for
        app: Flask = proxy._get_current_object() if has_app_context() else self._app
        _look_back()
        with app.app_context():
            yield

    @asynccontextmanager
    async def asynchronous(self) -> AsyncGenerator[None]:
        """The same for async calls."""
        _forget_executor()
        with self.sync():
            yield


def _forget_executor() -> None:
    """Take out of the call's context what asgiref keeps there of an async view.

    Flask runs such views with `async_to_sync`, whose executor dies with the request;
    `sync_to_async` in a call would wait for it. No public name; asgiref 3.7 to 3.13.
    """
    module = sys.modules.get("asgiref.sync")
    executors = module.AsyncToSync.executors if module is not None else None
    if executors is not None and hasattr(executors, "current"):
        del executors.current


def _look_back() -> None:
    """Note the route for records, and let a change of `session` be an error (B7).

    `on_update` is Werkzeug's hook of the dict that Flask's and Flask-Session's sessions
    are; it is called at every change.
    """
    if has_request_context():
        if isinstance(unit := current.get(), Exchange):
            unit.route = str(request_ctx.request.url_rule or "") or None
        session: Any = getattr(request_ctx, "session", None)
        if hasattr(session, "on_update"):
            session.on_update = _too_late


def _too_late(_session: object) -> None:
    raise TooLateError(TOO_LATE.format(what="the session"))
