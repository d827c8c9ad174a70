"""A worker: what `postlude work` does."""

import logging
import signal
import threading

import postlude
from postlude import _call
from postlude.queues import run

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    postlude.settings()
    _call.carrier.queue.work(run, stop, 2)
