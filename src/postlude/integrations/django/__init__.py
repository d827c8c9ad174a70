"""Django, under WSGI and ASGI: one line in the settings, first in the list.

```python
# settings.py
MIDDLEWARE = ["postlude.integrations.django.PostludeMiddleware"]

# views.py
from django.http import HttpResponse
from postlude import defer

def create_order(request):
    defer(print, "after the response")
    return HttpResponse("ok")
```

Calls also wait for the transactions that they were deferred in (`atomic()`, its
savepoints, `ATOMIC_REQUESTS`) and go with a rollback: the middleware installs
`postlude.transactions.django`. For commands, workers and tests without it, this package
in `INSTALLED_APPS` does the same, or `postlude.transactions.django.install()`.

Settings go into `POSTLUDE = {"THREADS": 8, ...}`. Under ASGI, wrap the application in
`postlude.asgi.PostludeMiddleware` too, so that the server's shutdown drains the calls.
"""

from postlude.integrations.django._middleware import PostludeMiddleware

__all__ = ["PostludeMiddleware"]
