"""What the tests of failures share: stores of every kind, and a process as if new.

SQLite is always there; `TEST_SERVICES=all` adds PostgreSQL and MariaDB, as in
`tests/transactions/conftest.py`, whose databases these are.
"""

import importlib.util
import logging
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import postlude
from postlude import _background, _defer, _process, _reporting, _runner, _settings, wsgi
from postlude.failures import FailureRecord, FailureStore
from postlude.failures.memory import MemoryFailureStore
from postlude.failures.sqlalchemy import SQLAlchemyFailureStore
from postlude.failures.sqlite import SQLiteFailureStore

HERE = Path(__file__).parent
# The waiting of the core's tests serves here too; importlib mode has no path to it.
sys.path.insert(0, str(HERE.with_name("core")))
sys.path.insert(0, str(HERE / "probes"))
# The Django project is that of the integration's tests: it is set up once per process.
sys.path.insert(0, str(HERE.with_name("integrations") / "django/probes"))

from stage.waiting import PATIENCE, Listener  # noqa: E402 - the path is made above


def _load(name: str, file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


servers = _load("failures_databases", HERE.with_name("transactions") / "conftest.py")
STORES = ["memory", "sqlite", "sqlalchemy-sqlite", "django"]
if servers.ALL:
    STORES += ["sqlalchemy-postgresql", "sqlalchemy-mariadb"]


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process as if new, and see that it leaves no call behind."""
    monkeypatch.setattr(wsgi, "_said", True)  # pytest leaves SIGTERM to the system
    monkeypatch.setattr(_reporting, "_store", None)
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


Opener = Callable[[], FailureStore]


@pytest.fixture(params=STORES)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens an empty store of each kind; again and again the same one."""
    kind, _, server = request.param.partition("-")
    if kind == "memory":
        only = MemoryFailureStore(1_000)
        yield lambda: only
    elif kind == "sqlite":
        yield lambda: SQLiteFailureStore(tmp_path / "postlude.db")
    elif kind == "django":
        request.getfixturevalue("django_tables")
        yield _django_store
    else:
        for database in servers._make(server, tmp_path):
            made: list[FailureStore] = []

            def make(url: str = database.url, made: list[Any] = made) -> FailureStore:
                made.append(SQLAlchemyFailureStore(url))
                return made[-1]

            yield make
            for store in made:
                store.close()


def _django_store() -> FailureStore:
    from postlude.failures.django import DjangoFailureStore  # noqa: PLC0415 - Django is set up by a fixture

    return DjangoFailureStore()


@pytest.fixture
def store(opener: Opener) -> Iterator[FailureStore]:
    """An empty store of each kind."""
    made = opener()
    yield made
    made.close()


@pytest.fixture
def django_tables() -> Iterator[None]:
    """Give Django's tables, and empty them afterwards."""
    import in_process  # noqa: PLC0415 - not every test needs Django

    in_process.configure()
    in_process.make_databases()
    from django.apps import apps  # noqa: PLC0415 - Django is set up by now
    from django.db import connections  # noqa: PLC0415

    yield
    for model in apps.get_app_config("postlude").get_models():
        model._default_manager.all().delete()
    connections.close_all()


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


@pytest.fixture
def record() -> Callable[..., FailureRecord]:
    """Makes records, each with another id and a later end."""
    made = 0
    base = int(time.time()) - 100_000  # whole seconds: exact in every database

    def record(**fields: Any) -> FailureRecord:
        nonlocal made
        made += 1
        values: dict[str, Any] = {
            "id": f"{made:032x}",
            "name": "mail",
            "function": "shop:mail",
            "arguments": {"to": "'ann'"},
            "state": "failed",
            "unit": {"method": "GET", "route": "/orders", "status": 200},
            "site": "shop.py:7 in order",
            "exception": "ValueError('no')",
            "traceback": "Traceback\n",
            "started": base + made + 0.25,
            "ended": base + made + 0.5,
        }
        return FailureRecord(**{**values, **fields})

    return record


class Script:
    """Runs Python programs in processes of their own, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        package = str(Path(postlude.__file__).parent.parent)
        path = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, source: str, *words: str, **environment: str) -> Any:
        """Start a program."""
        file = self.folder / "program.py"
        file.write_text(textwrap.dedent(source))
        return subprocess.Popen(
            [sys.executable, "-W", "error", str(file), *words],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, source: str, *words: str, **environment: str) -> Any:
        """Run a program to its end."""
        with self.start(source, *words, **environment) as process:
            try:
                out, err = process.communicate(timeout=2 * PATIENCE)
            except BaseException:  # pytest's own time-out, too, must leave no process
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Runs Python programs in processes of their own."""
    return Script(tmp_path)
