"""Run 1,000 random transactions with Django's tasks; print orders and jobs as JSON."""

import json
import sys

import django
from django.db import connection
from random_orders import TABLE, blocks, run_in_django

import postlude
from postlude.transactions import django as gates

django.setup()
gates.install()

from django_tasks_db.models import DBTaskResult  # noqa: E402 - after the setup

postlude.configure(queue="django", modules=("random_orders",))
with connection.cursor() as cursor:
    cursor.execute(TABLE)
with postlude.DeferScope():
    for block in blocks(int(sys.argv[1]), seed=11):
        run_in_django("default", block)
    with connection.cursor() as cursor:
        cursor.execute("select name from orders")
        orders = [name for (name,) in cursor.fetchall()]
    jobs = [
        json.loads(row.args_kwargs["args"][0])["name"]
        for row in DBTaskResult.objects.all()
    ]
with postlude.DeferScope():
    pass
postlude.drain(30)
after = DBTaskResult.objects.count()
print(json.dumps({"orders": orders, "jobs": jobs, "after": after}))  # noqa: T201 - the result
