"""`killing.django_site` with each request in a transaction of its own."""

import os

os.environ["KILL_ATOMIC"] = "1"

from killing.django_site import asgi, wsgi

__all__ = ["asgi", "wsgi"]
