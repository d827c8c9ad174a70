"""D8: workers forked from a process that has loaded, and used, Postlude."""

import pytest

from harness.catalogue import of_protocol

GUNICORN = [one for one in of_protocol("wsgi") if one.name.startswith("gunicorn")]


@pytest.mark.parametrize("spec", GUNICORN, ids=lambda spec: spec.name)
def test_calls_run_in_the_worker_that_served(spec, start_own, visit):
    """After `--preload` each worker runs the calls of its own requests (D8)."""
    # At import, in the first process, calls have run: threads and a loop of Postlude's
    # were there, and none of them came through the fork.
    options = ["--preload", "--workers", "2"]
    # A worker that still boots when the test ends misses the signal to end.
    options += ["--graceful-timeout", "5"]
    server = start_own(spec, *options, PROBE_CALLS_AT_IMPORT="1")
    served_by = {}
    with server.connect() as busy:
        busy.request(visit.target("waits", "first-sync:sync", "first-async:async"))
        handler = visit.gate("handler")
        # a worker of gunicorn's sync class is blocked by that, so the other one answers
        with server.connect() as other:
            calls = "second-async:async", "second-sync:sync"
            served_by["second"] = other.get(visit.target("length", *calls))
        handler.open()
        served_by["first"] = busy.read_response()
    for unit, response in served_by.items():
        for kind in ("sync", "async"):
            pid = visit.begin(f"{unit}-{kind}").pid
            assert str(pid) == response.headers["x-pid"]
            assert pid != server.process.pid
            visit.end(f"{unit}-{kind}")
    workers = {response.headers["x-pid"] for response in served_by.values()}
    assert len(workers) == 2 or spec.slots > 1


@pytest.mark.parametrize("spec", GUNICORN, ids=lambda spec: spec.name)
def test_preloaded_workers_drain(spec, start_own, visit):
    """SIGTERM to the first process drains the forked workers (D7, D8)."""
    server = start_own(spec, "--preload", PROBE_CALLS_AT_IMPORT="1")
    with server.connect() as connection:
        connection.get(visit.target("length", "call:held", "next:async"))
    gate = visit.gate("call")
    server.signal(spec.stop_signal)
    server.event("shutdown-begun")
    gate.open()
    assert server.wait_exit() == spec.exit_status
    assert visit.ended() == ["call", "next"]
