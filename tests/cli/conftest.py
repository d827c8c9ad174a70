import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import postlude

# What several folders share lies above them; importlib mode has no path to it.
sys.path.insert(0, str(Path(__file__).parents[1]))

from warm import WarmPython

from postlude import _reporting, _settings, wsgi
from postlude.failures import _attempt
from postlude.failures.sqlite import SQLiteFailureStore

PROBES = Path(__file__).parent / "probes"
PATIENCE = 30
PROGRAM = (
    "postlude.cli",
    "postlude.failures.sqlite",
    "pydantic.plugin._loader",
    "rich.progress",
    "typer._adapters",
    "typer._click.decorators",
)
"""What the command imports; where all is tested, it does so itself each time."""
ALL = os.environ.get("TEST_SERVICES") == "all"


class Project:
    """A folder with an application in it, and a shell that stands there."""

    def __init__(self, folder: Path, warm: WarmPython | None) -> None:
        self.folder = folder
        self._warm = warm
        package = str(Path(postlude.__file__).parent.parent)
        # Not the folder itself: finding it is the command's own business.
        path = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
        # The width of the terminal of whoever runs the tests; in a pipe there is none.
        self.environment.pop("COLUMNS", None)
        for probe in PROBES.glob("*.py"):
            shutil.copy(probe, folder)

    def start(
        self, *command: str, stdout: int = subprocess.PIPE, **environment: str
    ) -> subprocess.Popen[str]:
        """Start a Python program."""
        return subprocess.Popen(
            [sys.executable, "-W", "error", *command],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess:
        """Run a Python program to its end."""
        # Python reads its own variables when it starts.
        if self._warm and not any(name.startswith("PYTHON") for name in environment):
            together = self.environment | environment
            return self._warm.run([*command], self.folder, together, PATIENCE)
        with self.start(*command, **environment) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def postlude(self, *words: str, **environment: str) -> subprocess.CompletedProcess:
        """Run a command."""
        return self.run("-m", "postlude", *words, **environment)

    def json(self, *words: str, code: int = 0, **environment: str):
        """Run a command with `--json`, and give what it says."""
        done = self.postlude(*words, "--json", **environment)
        assert (done.returncode, done.stderr) == (code, ""), done
        return json.loads(done.stdout)

    def fail(self, *paths: str, store: str = "sqlite:///postlude.db") -> None:
        """Send requests whose calls fail, to a process of their own."""
        done = self.run("shop.py", *paths, POSTLUDE_FAILURES=store)
        assert done.returncode == 0, done.stderr

    def heal(self) -> None:
        """Let the application be well from now on."""
        (self.folder / "well").touch()

    @property
    def store(self) -> SQLiteFailureStore:
        """The application's failure store."""
        return SQLiteFailureStore(self.folder / "postlude.db", create=False)

    @property
    def records(self):
        """What is in the store."""
        store = self.store
        try:
            return list(store.list())
        finally:
            store.close()

    @property
    def ran(self) -> list[str]:
        """What the calls noted."""
        file = self.folder / "ran.txt"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmPython | None]:
    """A Python that has imported what the command imports."""
    if ALL:
        yield None
        return
    warm = WarmPython(*PROGRAM)
    yield warm
    warm.close()


@pytest.fixture
def project(tmp_path: Path, warm: WarmPython | None) -> Project:
    """A folder with an application in it."""
    return Project(tmp_path, warm)


@pytest.fixture
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give a test a process as if new."""
    monkeypatch.setattr(wsgi, "_said", True)  # pytest leaves SIGTERM to the system
    monkeypatch.setattr(_reporting, "_store", None)
    monkeypatch.setattr(_attempt, "arounds", ())
    _settings.reset()
    yield
    postlude.drain(5)
    _settings.reset()
