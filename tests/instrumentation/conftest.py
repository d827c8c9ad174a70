"""What the tests of the instruments share."""

import pytest

from postlude import _settings
from postlude.instrumentation import _instruments


@pytest.fixture(autouse=True)
def _own_instruments(monkeypatch):
    """Give each test a process without instruments or settings."""
    _settings.reset()
    monkeypatch.setattr(_instruments, "instruments", ())
    monkeypatch.setattr(_instruments, "_complained", [])
    yield
    _settings.reset()


def good(_number=0):
    """Work."""


async def good_async(_number=0):
    """Work on a loop."""


def bad():
    """Fail."""
    raise ValueError("no")
