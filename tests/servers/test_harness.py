"""The measure itself: what the other tests of this folder rely on."""

import socket

import pytest

from harness.wire import STAMPED_BY_KERNEL, Connection, WireError, now


@pytest.fixture
def pair():
    """A connection of the raw client, and the server's end of it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Connection(listener.getsockname()[1]) as client,
        listener.accept()[0] as end,
    ):
        yield client, end


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_what_happens_before_the_last_byte_is_earlier(pair):
    """What happens before the terminator is handed over has an earlier stamp (B1)."""
    client, end = pair
    end.sendall(HEAD + b"3\r\none\r\n")
    early = now()
    end.sendall(b"0\r\n\r\n")
    late = now()
    last_byte_at = client.read_response().last_byte_at
    assert early < last_byte_at
    assert last_byte_at < late or not STAMPED_BY_KERNEL


def test_every_arrival_is_stamped_by_the_kernel(pair):
    """The stamps do not depend on when the client was scheduled, on Linux (B1)."""
    client, end = pair
    end.sendall(HEAD + b"0\r\n\r\n")
    client.read_response()
    assert client.all_stamped == STAMPED_BY_KERNEL


def test_two_responses_in_one_segment_are_told_apart(pair):
    """The client leaves the bytes of the next response where they are (B2)."""
    client, end = pair
    end.sendall((HEAD + b"3\r\none\r\n0\r\n\r\n") * 2)
    assert [client.read_response().body for _ in range(2)] == [b"one", b"one"]


def test_a_response_cut_short_is_an_error(pair):
    """A response without its end is no response (B1)."""
    client, end = pair
    end.sendall(HEAD + b"3\r\none\r\n")
    end.shutdown(socket.SHUT_WR)
    with pytest.raises(WireError, match="EOF"):
        client.read_response()
