import socket
import threading
import time

import pytest

from shop.wire import WireError, exchange


@pytest.fixture
def serve():
    """Return a function that answers one connection with pieces and tells its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []
    stamps = []

    def start(*pieces):
        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for piece in pieces:
                    stamps.append(time.monotonic())
                    connection.sendall(piece)

        thread = threading.Thread(target=answer)
        thread.start()
        threads.append(thread)
        return listener.getsockname()[1], stamps

    yield start
    for thread in threads:
        thread.join()
    listener.close()


def test_the_last_byte_is_stamped(serve):
    """The stamp of the last byte is taken when the whole body is here, not its head."""
    port, stamps = serve(
        b"HTTP/1.1 201 Created\r\nContent-Le", b"ngth: 4\r\n\r\nab", b"cd"
    )
    answer = exchange(port, "POST", "/", {"a": 1})
    assert (answer.status, answer.body) == (201, b"abcd")
    assert answer.sent < stamps[0]
    assert answer.last_byte > stamps[-1]
    assert answer.waited == answer.last_byte - answer.sent


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"], id="cut"),
        pytest.param([], id="nothing"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\nab"], id="unframed"),
    ],
)
def test_half_an_answer_is_an_error(serve, pieces):
    """An answer that is cut, or hides how long it is, is never taken for whole."""
    port, _ = serve(*pieces)
    with pytest.raises(WireError):
        exchange(port, "GET", "/")
