"""The settings of a Django project whose tasks are rows of its own database."""

import os

from psycopg.conninfo import conninfo_to_dict

_known = conninfo_to_dict(os.environ["SHOP_DATABASE"])
SECRET_KEY = "-" * 50
USE_TZ = True
INSTALLED_APPS = ["django_tasks", "django_tasks_db"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _known["dbname"],
        "HOST": _known["host"],
        "PORT": _known["port"],
        "USER": _known["user"],
        "PASSWORD": _known.get("password", ""),
    }
}
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
