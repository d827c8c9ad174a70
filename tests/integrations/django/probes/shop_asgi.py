"""The Django project under test as an ASGI application: bare, and wrapped."""

from django.conf import settings
from django.core.asgi import get_asgi_application

from asgi_probe import watch_lifespan
from postlude.asgi import PostludeMiddleware


def _with_sync_middleware():
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "shop_views.sync_middleware"]
    return get_asgi_application()


bare = get_asgi_application()
wrapped = watch_lifespan(PostludeMiddleware(bare))
with_sync_middleware = _with_sync_middleware()
