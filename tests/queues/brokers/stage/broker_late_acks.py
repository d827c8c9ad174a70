"""A worker of Dramatiq on RabbitMQ whose acknowledgements leave late, as under load."""

import runpy
import threading
from pathlib import Path

from dramatiq.brokers.rabbitmq import _RabbitmqConsumer

LATE = 0.2
"""Seconds."""
_ack = _RabbitmqConsumer.ack


def ack(consumer, message):
    """Acknowledge a message in a while."""
    threading.Timer(LATE, _ack, (consumer, message)).start()


if __name__ == "__main__":
    _RabbitmqConsumer.ack = ack
    runpy.run_path(str(Path(__file__).with_name("broker_worker.py")), None, "__main__")
