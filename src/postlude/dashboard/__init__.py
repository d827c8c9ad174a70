"""A live page of what is deferred: what runs, what failed and from where.

Mounted in an application, behind its own sign-in:

```python
from postlude import dashboard

app.mount("/postlude", dashboard.asgi(authorize=lambda scope: scope["user"].is_admin))
```

`dashboard.wsgi(authorize=...)` gives the same for WSGI, and `dashboard.serve(store)` a
server of its own on this machine, for `postlude dashboard postlude.db`. Needs Jinja2:
`pip install 'postlude[dashboard]'`.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("jinja2") is None:
    raise ImportError(
        "postlude.dashboard needs Jinja2, which is not installed. Usually Postlude was "
        "installed without the dashboard's extra. Install it with "
        "`pip install 'postlude[dashboard]'`."
    )

from postlude.dashboard._asgi import asgi
from postlude.dashboard._serve import serve
from postlude.dashboard._wsgi import wsgi

__all__ = ["asgi", "serve", "wsgi"]
