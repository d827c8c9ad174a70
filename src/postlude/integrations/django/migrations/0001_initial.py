"""The first tables: failures, numbers, processes."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Make them."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Process",
            fields=[
                (
                    "id",
                    models.CharField(max_length=64, primary_key=True, serialize=False),
                ),
                ("host", models.CharField(max_length=255)),
                ("pid", models.BigIntegerField()),
                ("began", models.FloatField()),
                ("seen", models.FloatField()),
                ("pending", models.BigIntegerField()),
                ("running", models.TextField()),
                ("limits", models.TextField()),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="Failure",
            fields=[
                (
                    "id",
                    models.CharField(max_length=64, primary_key=True, serialize=False),
                ),
                ("name", models.CharField(max_length=600)),
                ("function", models.CharField(max_length=300)),
                ("arguments", models.TextField()),
                ("state", models.CharField(max_length=16)),
                ("unit", models.TextField()),
                ("site", models.TextField(verbose_name="deferred at")),
                ("exception", models.TextField(null=True)),
                ("traceback", models.TextField(null=True)),
                ("started", models.FloatField(null=True)),
                ("ended", models.FloatField()),
                ("attempt", models.IntegerField()),
                ("hint", models.TextField(null=True)),
                ("payload", models.TextField(null=True)),
                (
                    "refusal",
                    models.TextField(null=True, verbose_name="cannot be run again"),
                ),
                ("host", models.CharField(max_length=255)),
                ("pid", models.BigIntegerField()),
            ],
            options={
                "verbose_name": "failed call",
                "permissions": (("retry_failure", "Can run failed call again"),),
                "default_permissions": ("view", "delete"),
                "indexes": [
                    models.Index(fields=["ended"], name="postlude_failure_ended")
                ],
            },
        ),
        migrations.CreateModel(
            name="Tally",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("minute", models.BigIntegerField()),
                ("kind", models.CharField(max_length=16)),
                ("function", models.CharField(max_length=300)),
                ("route", models.CharField(max_length=300)),
                ("label", models.CharField(max_length=64)),
                ("count", models.BigIntegerField()),
                ("total", models.FloatField()),
            ],
            options={
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("minute", "kind", "function", "route", "label"),
                        name="postlude_tally_key",
                    )
                ],
            },
        ),
    )
