"""The tables of `postlude.failures.django`, with the columns of every other store."""

from __future__ import annotations

from django.db import models

from postlude.failures._schema import LENGTHS

__all__ = ["Failure", "Process", "Tally"]


def _short(name: str) -> models.CharField[str, str]:
    return models.CharField(max_length=LENGTHS[name])


class Failure(models.Model):
    """A call that failed, timed out or was lost: a `FailureRecord`."""

    id: models.CharField[str, str] = models.CharField(
        primary_key=True, max_length=LENGTHS["id"]
    )
    name = _short("name")
    function = _short("function")
    arguments: models.TextField[str, str] = models.TextField()
    state = _short("state")
    unit: models.TextField[str, str] = models.TextField()
    site: models.TextField[str, str] = models.TextField("deferred at")
    exception: models.TextField[str | None, str | None] = models.TextField(null=True)
    traceback: models.TextField[str | None, str | None] = models.TextField(null=True)
    started: models.FloatField[float | None, float | None] = models.FloatField(
        null=True
    )
    ended: models.FloatField[float, float] = models.FloatField()
    attempt: models.IntegerField[int, int] = models.IntegerField()
    hint: models.TextField[str | None, str | None] = models.TextField(null=True)
    payload: models.TextField[str | None, str | None] = models.TextField(null=True)
    refusal: models.TextField[str | None, str | None] = models.TextField(
        "cannot be run again", null=True
    )
    host = _short("host")
    pid: models.BigIntegerField[int, int] = models.BigIntegerField()

    class Meta:  # noqa: D106 - Django's word
        verbose_name = "failed call"
        default_permissions = ("view", "delete")
        permissions = (("retry_failure", "Can run failed call again"),)
        indexes = (models.Index(fields=["ended"], name="postlude_failure_ended"),)

    def __str__(self) -> str:
        return f"{self.name} ({self.id[:8]})"


class Tally(models.Model):
    """Numbers of one minute: a `Tally`."""

    minute: models.BigIntegerField[int, int] = models.BigIntegerField()
    kind = _short("kind")
    function = _short("function")
    route = _short("route")
    label = _short("label")
    count: models.BigIntegerField[int, int] = models.BigIntegerField()
    total: models.FloatField[float, float] = models.FloatField()

    class Meta:  # noqa: D106 - Django's word
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=["minute", "kind", "function", "route", "label"],
                name="postlude_tally_key",
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.function} {self.route} {self.label}: {self.count}"


class Process(models.Model):
    """What one process is doing: a `ProcessRecord`."""

    id: models.CharField[str, str] = models.CharField(
        primary_key=True, max_length=LENGTHS["id"]
    )
    host = _short("host")
    pid: models.BigIntegerField[int, int] = models.BigIntegerField()
    began: models.FloatField[float, float] = models.FloatField()
    seen: models.FloatField[float, float] = models.FloatField()
    pending: models.BigIntegerField[int, int] = models.BigIntegerField()
    running: models.TextField[str, str] = models.TextField()
    limits: models.TextField[str, str] = models.TextField()

    class Meta:  # noqa: D106 - Django's word
        default_permissions = ()

    def __str__(self) -> str:
        return self.id
