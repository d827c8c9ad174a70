"""Failed calls in Django's admin: to read, to forget, to run again."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import ngettext

from postlude.exceptions import PostludeError
from postlude.failures.django import DjangoFailureStore
from postlude.integrations.django.models import Failure

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest

    _ModelAdmin = admin.ModelAdmin[Failure]
else:
    _ModelAdmin = admin.ModelAdmin  # generic in its stubs only

_SHOWN = 100
"""Characters of an exception in the list."""


@admin.register(Failure)
class FailureAdmin(_ModelAdmin):
    """Nothing can be changed: a record says what has been."""

    list_display = ("ended_at", "name", "state", "raised", "attempt", "host")
    list_display_links = ("ended_at", "name")
    list_filter = ("state", "function")
    search_fields = ("id", "name", "function", "exception", "traceback", "unit")
    actions = ("forget", "run_again")
    ordering = ("-ended", "-id")
    show_full_result_count = False
    fields = (
        "name",
        "function",
        "state",
        "attempt",
        "ended_at",
        "took",
        "request",
        "site",
        "shown_arguments",
        "hint",
        "shown_traceback",
        "refusal",
        "host",
        "pid",
        "id",
    )
    readonly_fields = fields

    @admin.display(description="ended", ordering="ended")
    def ended_at(self, row: Failure) -> datetime:
        """Give the time in the time zone of the admin."""
        return datetime.fromtimestamp(row.ended, UTC)

    @admin.display(description="ran for")
    def took(self, row: Failure) -> str:
        """Say how long it ran."""
        if row.started is None:
            return "never began"
        return f"{max(0.0, row.ended - row.started):.3f} s"

    @admin.display(description="exception", ordering="exception")
    def raised(self, row: Failure) -> str:
        """Link to the traceback."""
        text = row.exception or row.state
        place = reverse(
            f"{self.admin_site.name}:postlude_failure_change", args=(row.pk,)
        )
        short = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        return format_html('<a href="{}#traceback">{}</a>', place, short)

    @admin.display(description="request")
    def request(self, row: Failure) -> str:
        """Say which request deferred it."""
        return _lines(row.unit)

    @admin.display(description="arguments")
    def shown_arguments(self, row: Failure) -> str:
        """Show one argument per line."""
        return _lines(row.arguments)

    @admin.display(description="traceback")
    def shown_traceback(self, row: Failure) -> str:
        """Show it as it was raised."""
        return format_html(
            '<pre id="traceback" style="white-space: pre-wrap; '
            'overflow-wrap: anywhere">{}</pre>',
            row.traceback or "none",
        )

    # -- who may do what ------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's
        """Failures come from elsewhere."""
        return False

    def has_change_permission(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's
        obj: Failure | None = None,  # noqa: ARG002 - Django's
    ) -> bool:
        """A record says what has been."""
        return False

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Running code is more than reading or deleting."""
        user: Any = request.user
        return bool(user.has_perm("postlude.retry_failure"))

    def get_actions(
        self, request: HttpRequest, action_location: object = None
    ) -> dict[str, Any]:
        """Leave out Django's own deletion: `forget` is the same in Postlude's words."""
        model_admin: Any = super()
        where = () if action_location is None else (action_location,)  # from Django 6.1
        actions: dict[str, Any] = model_admin.get_actions(request, *where)
        actions.pop("delete_selected", None)
        return actions

    # -- actions ----------------------------------------------------------------

    @admin.action(description="Forget selected failed calls", permissions=["delete"])
    def forget(self, request: HttpRequest, rows: QuerySet[Failure]) -> None:
        """Take records out."""
        ids = list(rows.values_list("pk", flat=True))
        try:
            gone = DjangoFailureStore().forget(ids)
        except PostludeError as exc:
            self.message_user(request, str(exc), messages.ERROR)
            return
        text = ngettext("%d failed call forgotten.", "%d failed calls forgotten.", gone)
        self.message_user(request, text % gone, messages.SUCCESS)

    @admin.action(description="Run selected failed calls again", permissions=["retry"])
    def run_again(self, request: HttpRequest, rows: QuerySet[Failure]) -> None:
        """Run calls again, one after another; what cannot be run says why."""
        from postlude.failures import retry  # noqa: PLC0415 - only where one is run again

        store = DjangoFailureStore()
        done = 0
        for one in rows.order_by("ended").values_list("pk", flat=True):
            for record in [found for found in store.find(one) if found.id == one]:
                try:
                    result = retry(record, store)
                except PostludeError as exc:
                    self.message_user(request, str(exc), messages.WARNING)
                    continue
                if result.state == "done":
                    done += 1
                else:
                    again = result.failure.exception if result.failure else None
                    text = f"The call {record.name}: {result.state} again ({again})"
                    self.message_user(request, text, messages.ERROR)
        if done:
            text = ngettext("%d call has run well.", "%d calls have run well.", done)
            self.message_user(request, text % done, messages.SUCCESS)


def _lines(content: str) -> str:
    """Show a stored mapping, one value per line."""
    try:
        found: dict[str, object] = json.loads(content)
        lines = [f"{name}: {value}" for name, value in found.items()]
    except (ValueError, AttributeError):
        lines = [content]
    return format_html(
        '<pre style="white-space: pre-wrap; overflow-wrap: anywhere">{}</pre>',
        "\n".join(lines),
    )
