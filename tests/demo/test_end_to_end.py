import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUICK = {
    "OWN_MS": "5",
    "MAIL_MS": "60",
    "EVENT_MS": "30",
    "INVENTORY_MS": "40",
    "CACHE_MS": "20",
}


def start(tmp_path, **settings):
    """Start the demo with latencies that a test can wait for."""
    return subprocess.Popen(
        [sys.executable, "-m", "shop"],
        env={
            **os.environ,
            **QUICK,
            "PYTHONPATH": str(EXAMPLES),
            "REPORT_DIR": str(tmp_path / "report"),
            **settings,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "framework",
    [
        "fastapi",
        pytest.param("flask", marks=pytest.mark.wide),
        pytest.param("django", marks=pytest.mark.wide),
    ],
)
def test_the_main_job(tmp_path, framework):
    """Real orders with real side effects: all arrive, deferred ones late (B1, B2)."""
    demo = start(tmp_path, FRAMEWORK=framework, ORDERS="3")
    out, errors = demo.communicate()
    assert demo.returncode == 0, out + errors
    assert errors == ""
    assert "Nothing lost." in out
    numbers = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    assert numbers["problems"] == []
    assert [effect["arrived"] for effect in numbers["effects"]] == [6, 6, 6, 6]
    before, after = numbers["pictures"]["before"], numbers["pictures"]["after"]
    assert all(span["ended"] < before["last_byte"] for span in before["spans"])
    *_, last = after["spans"]
    assert last["ended"] > after["last_byte"]
    assert f"{framework}_app.py" in (tmp_path / "report" / "report.html").read_text()


def test_ctrl_c_ends_everything(tmp_path):
    """Ctrl-C while the shop is open ends it and its servers, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    demo = start(tmp_path, ORDERS="1000", PORT=str(port))
    assert demo.stdout is not None
    while not demo.stdout.readline().startswith("Posting"):
        assert demo.poll() is None
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate()
    assert (demo.returncode, errors) == (130, "\nStopped; the shop is closed.\n")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_taken_port_is_an_error(tmp_path):
    """A port that somebody else has ends the demo with the three beats and status 1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        demo = start(tmp_path, PORT=str(port))
        _, errors = demo.communicate()
    assert demo.returncode == 1
    happened, cause, fix = errors.split("\n")[1:4]
    assert happened.startswith(f"error: port {port} of 127.0.0.1 cannot be had: ")
    assert (cause[:7], fix[:7]) == ("cause: ", "fix:   ")


def test_a_bad_setting_starts_nothing(tmp_path):
    """A bad value ends the demo with status 2 before anything was started."""
    demo = start(tmp_path, FRAMEWORK="rails")
    out, errors = demo.communicate()
    assert (demo.returncode, out) == (2, "")
    assert errors.startswith("error: FRAMEWORK=rails is not one of ")
