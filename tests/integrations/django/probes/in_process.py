"""The one Django project of all tests in a process: Django is set up only once."""

import functools
import tempfile
from pathlib import Path

import django
from django.conf import settings
from django.db import connections
from django.test.utils import setup_databases, setup_test_environment


def configure() -> None:
    """Set Django up, once, for whichever test file comes first."""
    if settings.configured:
        return
    settings.configure(
        SECRET_KEY="-" * 50,
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=[
            "books",
            # what the tests of failures add: the store's tables, and the admin
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            "postlude.integrations.django",
        ],
        DATABASES={
            name: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
            for name in ("default", "memory", "other")
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        USE_TZ=True,
    )
    django.setup()


@functools.cache
def make_databases() -> tempfile.TemporaryDirectory[str]:
    """Make the tables, once, in a file and in memory; the file goes with the process.

    Several folders of tests use them, and none knows whether it is the last one.
    """
    folder = tempfile.TemporaryDirectory(prefix="books-")
    file = Path(folder.name, "books.sqlite3")
    connections["default"].settings_dict["TEST"]["NAME"] = str(file)
    setup_test_environment()
    setup_databases(verbosity=0, interactive=False)
    return folder
