import logging
import warnings
from contextvars import Context

import pytest

from postlude import (
    DeferScope,
    RequestBoundWarning,
    _inspector,
    _reporting,
    _settings,
    defer,
)
from postlude.testing import capture


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Forget who was warned, what failed, and which settings there were."""
    monkeypatch.setattr(_inspector, "_warned", set())
    monkeypatch.setattr(_reporting, "_store", None)
    _settings.reset()
    yield
    _settings.reset()


@pytest.fixture
def warned():
    """Give the texts of what `defer` warns of; `capture()` stands for the request."""

    def warned(fn, *args, **kwargs):
        _inspector._warned.clear()  # the call site is always this one
        with warnings.catch_warnings(record=True) as caught, capture():
            warnings.simplefilter("always")
            defer(fn, *args, **kwargs)
        assert {warning.category for warning in caught} <= {RequestBoundWarning}
        assert {warning.filename for warning in caught} <= {__file__}
        return [str(warning.message) for warning in caught]

    return warned


@pytest.fixture
def told(caplog):
    """Let a call fail; give its log line and its record, which have the same hint."""

    def told(fn, *args, **kwargs):
        caplog.clear()
        with caplog.at_level(logging.ERROR, "postlude"):
            Context().run(_in_block, fn, *args, **kwargs)
        (record,) = _reporting.failure_store().list()
        (line,) = [r.getMessage() for r in caplog.records if r.name == "postlude"]
        before, _, hint = line.partition(" - hint: ")
        assert before.endswith(f"(deferred at {record.site})")
        assert (record.hint or "") == hint
        return hint

    return told


def _in_block(fn, *args, **kwargs):
    with DeferScope():
        defer(fn, *args, **kwargs)
