import os
import signal
import sys

import pytest

from shop import processes
from shop.processes import Processes
from shop.signals import StoppedError, stop_on_signals, uninterrupted

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
alive = os.open(sys.argv[1], os.O_WRONLY)
if os.fork():
    print("ready", flush=True)
while True:
    time.sleep(60)
"""
"""Two processes that hold the pipe they were told open for as long as they live."""


@pytest.fixture
def handlers():
    """Put back the signal handlers that a test replaced."""
    before = {number: signal.getsignal(number) for number in (1, 2, 15)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_stubborn_end_too(tmp_path, monkeypatch):
    """A process that ignores SIGTERM ends with its block, and its children with it."""
    monkeypatch.setattr(processes, "DRAIN_SECONDS", 0.05)
    pipe = tmp_path / "alive"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with Processes(tmp_path) as started:
        process = started.start(
            "stubborn", [sys.executable, "-c", STUBBORN, str(pipe)], {}, talks=True
        )
        assert process.first_line() == "ready\n"
        assert process.running
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    assert not process.running
    assert os.read(reader, 1) == b"", "somebody still holds the pipe open"
    os.close(reader)


def test_a_log_is_kept(tmp_path):
    """What a process says before it ends is there to be shown."""
    with Processes(tmp_path) as started:
        process = started.start(
            "talker", [sys.executable, "-c", "raise SystemExit('no such shop')"], {}
        )
        process.wait()
    assert process.log_tail().splitlines()[-1] == "no such shop"


def test_signals_wait_for_the_end_of_a_block(handlers):
    """A signal in a block that must not be cut is raised once the block is left."""
    stop_on_signals()
    reached = []

    def interrupted():
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            reached.append("the end of the block")

    with pytest.raises(StoppedError) as caught:
        interrupted()
    assert reached == ["the end of the block"]
    assert caught.value.status == 128 + signal.SIGTERM
