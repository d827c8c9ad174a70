"""Starts Python programs fast: forks of a Python that has imported what they need.

A program is a process of its own all the same: with its own folder, environment,
streams and end. What is different is what Python does before the first line; where that
is the point, and in the full run, programs are started the usual way.
"""

import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

ALLOWED = 65_536  # bytes of a request: words, environment and folder


class WarmPython:
    """Runs programs, one after another."""

    def __init__(self, *modules: str) -> None:
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [str(Path(__file__)), str(there.fileno()), *modules]
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # no terminal: as the programs' own
                pass_fds=[there.fileno()],
                start_new_session=True,
            )

    def run(
        self,
        command: list[str],
        folder: Path,
        environment: Mapping[str, str],
        timeout: float,
    ) -> subprocess.CompletedProcess[str]:
        """Run `-m module ...` or `file ...` to its end, as `subprocess.run` does."""
        request = json.dumps([command, str(folder), dict(environment)]).encode()
        self._here.settimeout(timeout)
        with contextlib.ExitStack() as stack:
            none = stack.enter_context(Path(os.devnull).open("rb"))
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in "oe")
            streams = [stream.fileno() for stream in (none, out, err)]
            try:
                socket.send_fds(self._here, [request], streams)
                code = int(self._here.recv(ALLOWED))
            except BaseException:  # a program that hangs must not outlive the test
                self.close()
                raise
            said = []
            for stream in (out, err):
                stream.seek(0)
                said.append(stream.read().decode())
        return subprocess.CompletedProcess(command, code, *said)

    def close(self) -> None:
        """End it, and what it runs."""
        self._here.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def serve(requests: socket.socket) -> tuple[list[str], str, dict[str, str]]:
    """Fork for each request, tell how that ended; return in the fork only."""
    while True:
        request, streams, *_ = socket.recv_fds(requests, ALLOWED, 3)
        if not request:
            requests.close()
            raise SystemExit
        pid = os.fork()
        if not pid:
            requests.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return json.loads(request)
        for stream in streams:
            os.close(stream)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        requests.send(str(status).encode())


def become(command: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be the program, as if Python had been started with it there."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    found = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [folder, *found, *sys.path[1:]]
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = command
    # Not run_path(): its module is gone when the calls at the interpreter's end run.
    module = ModuleType("__main__")
    module.__file__ = command[0]
    sys.modules["__main__"] = module
    exec(compile(Path(command[0]).read_text(), command[0], "exec"), vars(module))  # noqa: S102 - what Python does with a program


if __name__ == "__main__":
    for name in sys.argv[2:]:
        import_module(name)
    gc.freeze()
    become(*serve(socket.socket(fileno=int(sys.argv[1]))))
