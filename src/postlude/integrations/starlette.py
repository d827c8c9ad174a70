"""Starlette: `install(app)`, outermost, in one line.

```python
from postlude import defer
from postlude.integrations.starlette import install
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def home(request):
    defer(print, "after the response")
    return PlainTextResponse("hello")

app = Starlette(routes=[Route("/", home)])
install(app)
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from postlude._settings import settings
from postlude.asgi import PostludeMiddleware

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["PostludeMiddleware", "install"]


def install(app: Starlette) -> None:
    """Make every request and WebSocket of *app* a unit of work.

    Outside of all other middleware, also of `ServerErrorMiddleware`, which sends the
    500 of an unhandled exception after every `add_middleware` has returned. Installing
    twice changes nothing (A8).

    Raises:
        RuntimeError: the application has already started.
        SettingsError: a setting is unknown or impossible.
    """
    if app.middleware_stack is not None:
        raise RuntimeError(
            "postlude's install() was called on an application that has already "
            "started, so its middleware is built. Usually install() stands in a "
            "startup handler. Call it right after the application is made."
        )
    settings()  # an error in them is one here; servers swallow it in the lifespan
    build = app.build_middleware_stack

    def build_outermost() -> PostludeMiddleware:
        return PostludeMiddleware(build())

    app.build_middleware_stack = build_outermost  # type: ignore[method-assign]  # the one public place outside ServerErrorMiddleware
