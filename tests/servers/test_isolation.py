"""D2: what one call raises hurts nobody."""

import pytest

from harness.catalogue import KEEP_ALIVE, every_server

FAILURES = {
    "exception": "ValueError",
    "system-exit": "SystemExit",
    "keyboard-interrupt": "KeyboardInterrupt",
    "base-exception": "ProbeExit",
    "cancelled": "CancelledError",
}


@every_server
@pytest.mark.parametrize("how", ["fail", "afail"], ids=["sync", "async"])
@pytest.mark.parametrize(("failure", "error"), FAILURES.items(), ids=FAILURES)
def test_what_a_call_raises_hurts_nobody(server, failure, error, how, visit):
    """The next call runs, the connection and the process live, the log says it (D2)."""
    with server.connect() as connection:
        calls = f"bad:{how}-{failure}", "next:sync", "last:async"
        first = connection.get(visit.target("length", *calls))
        visit.end("last")
        if not server.spec.limit(KEEP_ALIVE):
            assert connection.get(visit.target("length")).status == 200
    with server.connect() as connection:
        after = connection.get(visit.target("length", "after:sync"))
    visit.end("after")
    assert visit.begun() == ["bad", "next", "last", "after"]
    assert after.headers["x-pid"] == first.headers["x-pid"]
    records = [one for one in server.logged() if visit.token in one.detail["text"]]
    assert [record.name for record in records] == ["ERROR"]
    assert error in records[0].detail["text"]
    assert "Traceback" in records[0].detail["text"]
