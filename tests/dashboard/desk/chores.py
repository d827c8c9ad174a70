"""What records name: functions of the project's own, in sync and in async."""

import threading

ran: list[str] = []
release = threading.Event()
"""Lets `wait` and `await_` go on."""
begun = threading.Event()


def work(key):
    """Do it."""
    ran.append(key)


async def awork(key):
    """Do it on a loop."""
    ran.append(key)


def fail(key):
    """Try it."""
    ran.append(key)
    raise ValueError(f"still no luck with {key}")


def wait(key):
    """Do it when the test lets go."""
    begun.set()
    assert release.wait(20)
    ran.append(key)
