"""The settings of the Django project under test in the process of the tests."""

import django
from django.conf import settings


def configure() -> None:
    """Set Django up, once, for whichever test file comes first."""
    if settings.configured:
        return
    settings.configure(
        SECRET_KEY="-" * 50,
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["books"],
        DATABASES={
            name: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
            for name in ("default", "memory")
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        USE_TZ=True,
    )
    django.setup()
