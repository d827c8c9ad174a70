"""The Django app `postlude`: tables for failures, their admin, `manage.py postlude`."""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings

from postlude import _settings
from postlude.transactions import django as transactions


class PostludeConfig(AppConfig):
    """Add `postlude.integrations.django` to `INSTALLED_APPS` to have it."""

    name = "postlude.integrations.django"
    label = "postlude"
    verbose_name = "Postlude"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Do for commands and workers what the middleware does for requests.

        Raises:
            SettingsError: `POSTLUDE` has a bad setting.
        """
        values = getattr(settings, "POSTLUDE", {})
        _settings.configure_framework(values, "the Django setting POSTLUDE")
        transactions.install()
