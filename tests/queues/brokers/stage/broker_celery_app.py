"""A user's own Celery app, with tasks and settings of its own."""

import os

from broker_jobs import write
from celery import Celery

import postlude
from postlude.queues.celery import CeleryQueue

app = Celery("shop", broker=os.environ["BROKER"], set_as_current=False)
app.conf.update(
    task_default_queue=os.environ["QUEUE_NAME"],
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 60},
)


@app.task
def own(what):
    """Be a task of the user's."""
    write(what, "own", 1)


postlude.configure(queue=CeleryQueue(app))
