"""Real servers as subprocesses, each with a shop and a SQLite file of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parents[1]
START = 30.0  # seconds; a loaded machine imports slowly
STOP = 20.0  # seconds; longer than the default grace of a drain (8 s)
COMMANDS = {
    "uvicorn": "-m uvicorn shop.asgi:app --port {port} --log-level warning",
    "uvicorn-2": "-m uvicorn shop.asgi:app --port {port} --workers 2",
    "gunicorn": "-m gunicorn shop.wsgi:app --bind 127.0.0.1:{port} --threads 4",
}


@dataclass
class Shop:
    """A shop that is open."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self):
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def staff(self):
        """Where its dashboard is."""
        return f"{self.address}/staff/postlude"

    def post(self, path):
        """Send something there, and give the answer's text."""
        request = urllib.request.Request(f"{self.address}{path}", b"", method="POST")  # noqa: S310 - http, here
        try:
            with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310 - as above
                return response.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.read().decode()

    def let(self, name):
        """Make one of the files that say how the world is."""
        (self.folder / name).touch()

    def end(self, name):
        """Take it away."""
        (self.folder / name).unlink(missing_ok=True)

    def close(self):
        """End the server and all that it started."""
        self.end("hold")
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP)
        finally:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def start(kind, folder):
    """Open a shop, and give it once it answers."""
    port = free_port()
    command = [sys.executable, *COMMANDS[kind].format(port=port).split()]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join(
        str(Path(p).absolute()) for p in (HERE, *inherited) if str(p)
    )
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "SHOP_FOLDER": str(folder),
                "POSTLUDE_FAILURES": f"sqlite:///{folder / 'postlude.db'}",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    shop = Shop(port, folder, process)
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return shop
    shop.close()
    raise RuntimeError(f"{kind} did not start:\n{log.read_text(errors='replace')}")


def free_port():
    """Find a port that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
