"""The settings of the Django project under test with every view in a transaction."""

from shop_settings import *  # noqa: F403 - as Django's documentation derives settings

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "ATOMIC_REQUESTS": True,
    }
}
