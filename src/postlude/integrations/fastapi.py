"""FastAPI: `install(app)`, outermost, in one line.

```python
from fastapi import FastAPI
from postlude import defer
from postlude.integrations.fastapi import install

app = FastAPI()
install(app)

@app.post("/orders")
async def create_order():
    defer(print, "after the response")
    return {"ok": True}
```

Works from endpoints, dependencies and their exit code, exception handlers, and beside
FastAPI's own `BackgroundTasks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from postlude.integrations.starlette import PostludeMiddleware
from postlude.integrations.starlette import install as _install

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["PostludeMiddleware", "install"]


def install(app: FastAPI) -> None:
    """Make every request and WebSocket of *app* a unit of work, outermost.

    Raises:
        RuntimeError: the application has already started.
        SettingsError: a setting is unknown or impossible.
    """
    _install(app)
