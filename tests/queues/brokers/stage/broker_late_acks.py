"""A worker of Dramatiq on RabbitMQ whose acknowledgements leave late, as under load."""

import runpy
import time
from pathlib import Path

from dramatiq.brokers.rabbitmq import _RabbitmqConsumer

LATE = 0.2
"""Seconds."""
_ack = _RabbitmqConsumer.ack


def ack(consumer, message):
    """Acknowledge a message when the connection's thread has been busy for a while."""
    consumer.connection.add_callback_threadsafe(lambda: time.sleep(LATE))
    _ack(consumer, message)


if __name__ == "__main__":
    _RabbitmqConsumer.ack = ack
    runpy.run_path(str(Path(__file__).with_name("broker_worker.py")), None, "__main__")
