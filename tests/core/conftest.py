import logging
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextvars import Context
from functools import partial
from pathlib import Path

import pytest

import postlude
from postlude import (
    _background,
    _defer,
    _process,
    _reporting,
    _runner,
    _settings,
    _threads,
    wsgi,
)
from postlude.instrumentation import _instruments

# What the files of this folder share is a package beside them, and the importlib mode
# of pytest puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

from stage import FORMS, PATIENCE, UNITS, Listener


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process as if new, and see that it leaves no call behind."""
    monkeypatch.setattr(wsgi, "_said", True)  # pytest leaves SIGTERM to the system
    monkeypatch.setattr(_reporting, "_store", None)
    monkeypatch.setattr(_instruments, "instruments", ())
    monkeypatch.setattr(_background, "_warned", set())
    monkeypatch.setattr(_defer, "_warned", set())
    _settings.reset()
    yield
    attempts = 600
    while (left := _units()) and (attempts := attempts - 1):
        time.sleep(0.005)
    postlude.drain(0)
    assert left == [], "the test, or Postlude, left units behind"
    assert _runner.running == {}, "the test, or Postlude, left calls behind"
    _settings.reset()
    _settings.settings()  # and so let go of the test's store


def _units() -> list[postlude.DeferScope]:
    return [
        scope for runner in list(_process.runners) for scope in _process.units(runner)
    ]


@pytest.fixture
def own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without threads: those of earlier tests would be there beyond a bound."""
    monkeypatch.setattr(_threads, "_threads", None)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Callable[..., Callable[..., object]]:
    """Makes a deferrable function of a plain one: sync, async, or `lambda: coro()`."""
    return FORMS[request.param]


@pytest.fixture(params=UNITS)
def unit(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a function in a unit of each kind; returns when its calls have run."""
    return partial(Context().run, UNITS[request.param])


@pytest.fixture(params=[name for name in UNITS if "trio" not in name])
def unit_on_asyncio(request: pytest.FixtureRequest) -> Callable[..., None]:
    """The same for calls that use asyncio themselves."""
    return partial(Context().run, UNITS[request.param])


@pytest.fixture
def logged() -> Iterator[Listener]:
    """What the logger "postlude" was told in this test."""
    logger = logging.getLogger("postlude")
    listener = Listener()
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    yield listener
    logger.setLevel(level)
    logger.removeHandler(listener)


class Script:
    """Runs Python programs in processes of their own, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        package = str(Path(postlude.__file__).parent.parent)
        path = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONUNBUFFERED": "1",
        }

    def start(
        self, source: str, *, measured: bool = True, **environment: str
    ) -> subprocess.Popen[str]:
        """Start a program; one that is not *measured* runs without coverage."""
        file = self._folder / "program.py"
        file.write_text(textwrap.dedent(source))
        env = {
            name: value
            for name, value in self._environment.items()
            if measured or not name.startswith("COVERAGE_")
        }
        return subprocess.Popen(
            [sys.executable, "-W", "error", str(file)],
            cwd=self._folder,
            env=env | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """Wait for the end of a program."""
        with process:
            try:
                out, err = process.communicate(timeout=2 * PATIENCE)
            except BaseException:  # pytest's own time-out, too, must leave no process
                process.kill()
                raise
        code = process.returncode
        return subprocess.CompletedProcess(process.args, code, out, err)

    def run(
        self, source: str, *, measured: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return self.finish(self.start(source, measured=measured, **environment))


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Runs Python programs in processes of their own."""
    return Script(tmp_path)
