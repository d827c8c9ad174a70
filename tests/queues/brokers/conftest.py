"""Engines on brokers, each with a queue of its own, and processes that are killed.

Huey on a file is always there. `TEST_SERVICES=all` adds what needs Redis (REDIS_URL)
or RabbitMQ (AMQP_URL), and fails where one does not answer.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import postlude
from postlude import _call, _settings

# The files that the tests of this folder share stand beside them, and the importlib
# mode of pytest puts no folder on the path.
sys.path.insert(0, str(Path(__file__).with_name("stage")))

from broker_kinds import KINDS
from broker_stage import Stage

LOGS = pytest.StashKey[Stage]()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def stage(request, tmp_path, monkeypatch) -> Iterator[Stage]:
    """One engine; this process is configured to use it, too."""
    stage = Stage(request.param, tmp_path)
    request.node.stash[LOGS] = stage
    monkeypatch.setenv("LEDGER", str(stage.ledger))
    _settings.reset()
    postlude.configure(queue=stage.address, failures=stage.store)
    postlude.settings()
    yield stage
    postlude.drain(5)
    queue = _call.carrier.queue if _call.carrier is not None else None
    _settings.reset()
    postlude.settings()
    if queue is not None:
        queue.close()
    stage.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show the logs of the processes of a failed test."""
    report = yield
    if report.failed and LOGS in item.stash:
        report.sections.append(("processes", item.stash[LOGS].logs()))
    return report


def pytest_terminal_summary(terminalreporter):
    """Say how long each engine took to begin a job again whose worker was killed."""
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "recovery":
                terminalreporter.write_line(value)
