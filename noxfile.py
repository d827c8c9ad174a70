"""Run the tests on every supported Python, with the oldest and the latest frameworks.

`make test-all` is the way in: it builds the wheel first, and has all services answer.
"""

import os
import shutil
import subprocess
from pathlib import Path

import nox

PYTHONS = ("3.11", "3.12", "3.13")
# The file of pins that each name stands for.
FRAMEWORKS = {"latest": "requirements/full.txt", "oldest": "requirements/oldest.txt"}
INSTALLER = "build/env/build/bin/python"

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "venv"
nox.options.download_python = "never"
nox.options.envdir = "build/nox"
# A Python that nobody tested on is a failure, not a smaller success.
nox.options.error_on_missing_interpreters = True
nox.options.reuse_venv = "yes"


def works(name: str, version: str) -> bool:
    """Tell whether `name` starts and is Python `version`: a shim may do neither."""
    command = [name, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == version


def find_in_pyenv(version: str) -> Path | None:
    """Return the folder of pyenv's newest Python `version`, if pyenv has one."""
    root = os.environ.get("PYENV_ROOT")
    if not root:
        return None
    found = Path(root, "versions").glob(f"{version}.*/bin/python{version}")
    working = [path for path in found if works(str(path), version)]
    working.sort(key=lambda path: int(path.parts[-3].split(".")[2]))
    return working[-1].parent if working else None


for wanted in PYTHONS:
    if not works(shutil.which(f"python{wanted}") or "", wanted):
        folder = find_in_pyenv(wanted)
        if folder:
            os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def install(session: nox.Session, *what: str) -> None:
    """Install with the pip that installs all environments of the Makefile."""
    python = str(Path(session.bin, "python"))
    session.run_install(
        *(INSTALLER, "-m", "pip", "--python", python, "install", "--quiet"),
        *("--disable-pip-version-check", "--no-input", "--no-compile", *what),
        external=True,
    )


def install_wheel(session: nox.Session) -> None:
    """Install the wheel that the Makefile has built."""
    wheels = [str(path) for path in Path("build/wheel").glob("*.whl")]
    if len(wheels) != 1:
        session.error("build/wheel holds no wheel to test. Run `make test-all`.")
    install(session, "--no-index", "--no-deps", "--force-reinstall", *wheels)


@nox.session(python=PYTHONS, venv_params=["--without-pip"])
def core(session: nox.Session) -> None:
    """Run the core's tests where no framework, server or library is installed."""
    install(session, "--require-hashes", "-r", "requirements/core.txt")
    install_wheel(session)
    session.run(
        *("python", "-m", "pytest", "tests/core", "tests/properties"),
        # about the test clients of frameworks, and about every module there is
        "--ignore=tests/core/test_clients.py",
        "--ignore=tests/core/test_api.py",
        *session.posargs,
    )


@nox.session(python=PYTHONS, venv_params=["--without-pip"])
@nox.parametrize("frameworks", list(FRAMEWORKS))
def tests(session: nox.Session, frameworks: str) -> None:
    """Run the tests against the wheel; what follows `--` goes to pytest."""
    install(session, "--require-hashes", "-r", FRAMEWORKS[frameworks])
    install_wheel(session)
    session.run("python", "-m", "pytest", *session.posargs)
