"""Applications on a real uvicorn, in a thread of the test."""

import threading
from contextlib import contextmanager

import uvicorn


class _Server(uvicorn.Server):
    def __init__(self, config):
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets=None):
        """Tell when it listens."""
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def served(app):
    """Serve an application on a socket; gives its address."""
    server = _Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.ready.wait(20), "uvicorn did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def watched(app, events):
    """Note the last byte of each answer."""

    async def outermost(scope, receive, send):
        async def send_and_tell(message):
            await send(message)
            body = message["type"] == "http.response.body"
            if body and not message.get("more_body"):
                events.append("last byte")

        await app(scope, receive, send_and_tell if scope["type"] == "http" else send)

    return outermost
