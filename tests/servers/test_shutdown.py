"""D7: a shutdown drains. Each test has a server of its own and ends it."""

import signal

from harness.catalogue import (
    SECOND_SIGNAL,
    SIGTERM_DRAIN,
    own_asgi_server_of_a_kind,
    own_server,
    own_server_of_a_kind,
)

NO_END = "3600"  # seconds; a grace that no test waits for


def hold(server, visit, *calls):
    """Have calls deferred in one request, and return once the first one waits."""
    with server.connect() as connection:
        connection.get(visit.target("length", *calls))
    name = calls[0].split(":")[0]
    visit.gate(name)


def begin_shutdown(server):
    """Send the signal that the server drains at; return when it has got through."""
    server.signal(server.spec.stop_signal)
    server.event("shutdown-begun")


def lost_calls(server):
    """Return what the log says of lost calls."""
    texts = [event.detail["text"] for event in server.logged()]
    return [text for text in texts if " was lost" in text]


@own_server
def test_a_shutdown_waits_for_all_calls(spec, start_own, visit):
    """Calls that run, wait, or come from a running call all end, then it exits (D7)."""
    server = start_own(spec, POSTLUDE_GRACE=NO_END)
    hold(server, visit, "thread:nesting", "behind:sync")
    hold(server, visit, "loop:nesting-async", "beyond:async")
    begin_shutdown(server)
    for name in ("thread", "loop"):
        visit.gate(name).open()
        visit.gate(f"{name}.nested").open()
    assert server.wait_exit() == spec.exit_status
    names = {"thread", "behind", "thread.nested", "loop", "beyond", "loop.nested"}
    assert sorted(visit.ended()) == sorted(names)
    assert lost_calls(server) == []


@own_server_of_a_kind
def test_a_shutdown_runs_the_first_async_call(spec, start_own, visit):
    """Also what needs a loop that nothing has needed before is run and waited for (D7).

    Python 3.12 starts no thread any more once the interpreter has begun to exit.
    """
    server = start_own(spec)
    hold(server, visit, "call:held", "next:async", "last:sync")
    begin_shutdown(server)
    visit.gate("call").open()
    assert server.wait_exit() == spec.exit_status
    assert visit.ended() == ["call", "next", "last"]


@own_asgi_server_of_a_kind
def test_the_application_closes_after_the_calls(spec, start_own, visit):
    """The drain is over before the application hears of the shutdown (D7)."""
    server = start_own(spec, POSTLUDE_GRACE=NO_END)
    hold(server, visit, "call:held")
    begin_shutdown(server)
    visit.gate("call").open()
    assert server.event("app-shutdown").at > visit.end("call").at
    assert server.wait_exit() == spec.exit_status


@own_server_of_a_kind
def test_what_outlasts_the_grace_is_recorded_as_lost(spec, start_own, visit):
    """After the grace each call that is left is named as lost, and it exits (D7)."""
    server = start_own(spec, POSTLUDE_GRACE="0.5")
    hold(server, visit, "stuck:held", "behind:sync")
    hold(server, visit, "waiting:held-async", "beyond:async")
    begin_shutdown(server)
    assert server.wait_exit() == spec.exit_status
    assert visit.ended() == []
    records = lost_calls(server)
    for name in ("stuck", "behind", "waiting", "beyond"):
        assert len([text for text in records if f" {name} was lost" in text]) == 1
    assert len(records) == 4


@own_server_of_a_kind
def test_a_second_signal_ends_at_once(spec, start_own, visit):
    """A second signal does not wait for the grace; what is left is named (D7)."""
    server = start_own(spec, POSTLUDE_GRACE=NO_END)
    hold(server, visit, "stuck:held", "behind:sync")
    begin_shutdown(server)
    server.signal(signal.SIGINT)
    if spec.limit(SECOND_SIGNAL):
        visit.gate("stuck").open()
        server.wait_exit()
        assert visit.ended() == ["stuck", "behind"]
    else:
        server.wait_exit()
        assert visit.ended() == []
        assert len(lost_calls(server)) == 2


@own_server_of_a_kind
def test_sigterm_where_the_server_leaves_it_to_the_system(spec, start_own, visit):
    """A server without a handler dies of SIGTERM; the process has said so (B2, D7)."""
    # not measured: coverage would handle the signal
    server = start_own(spec, COVERAGE_PROCESS_CONFIG="")
    hold(server, visit, "call:held")
    warnings = [event for event in server.logged() if "SIGTERM" in event.detail["text"]]
    server.signal(signal.SIGTERM)
    if spec.limit(SIGTERM_DRAIN):
        visit.gate("call").wait_gone()
        assert server.wait_exit() == -signal.SIGTERM
        assert visit.ended() == []
        assert len(warnings) == 1
    else:
        server.event("shutdown-begun")
        visit.gate("call").open()
        server.wait_exit()
        assert visit.ended() == ["call"]
        assert warnings == []
