"""E4: a log line for each call, with all fields for formatters."""

import logging

import structlog

from postlude import DeferScope, defer
from postlude.instrumentation import logging as instrument


def test_each_call_is_logged_with_its_fields(caplog):
    """The fields stand in `extra`, so a JSON formatter has them (E4)."""
    caplog.set_level(logging.INFO, "postlude")
    instrument.install()
    with DeferScope():
        defer(list).named("mail")
    (line,) = [r for r in caplog.records if "deferred call mail" in r.getMessage()]
    assert line.postlude_state == "done"
    assert line.postlude_duration >= 0
    assert __file__ in line.postlude_site


def test_structlog_shows_them(caplog):
    """Its `ExtraAdder` has them all (E4)."""
    caplog.set_level(logging.INFO, "postlude")
    instrument.install()
    with DeferScope():
        defer(list).named("mail")
    line = caplog.records[-1]
    adder = structlog.stdlib.ExtraAdder()
    event = adder(logging.getLogger("postlude"), "info", {"_record": line})
    assert event["postlude_name"] == "mail"
    assert event["postlude_state"] == "done"


def test_below_its_level_nothing_is_made(caplog):
    """A logger that does not listen costs nothing (E4)."""
    caplog.set_level(logging.WARNING, "postlude")
    instrument.install()
    with DeferScope():
        defer(list)
    assert caplog.records == []
