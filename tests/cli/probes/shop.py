"""An application whose calls fail until there is a file `well`."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from postlude import defer, drain
from postlude.wsgi import PostludeMiddleware


def note(line):
    """Write down that something ran."""
    with Path("ran.txt").open("a") as file:
        file.write(f"{line}\n")


def need_well(what):
    """Fail unless all is well."""
    if not Path("well").exists():
        raise ConnectionError(f"{what}: the mail server is down")


def send(order_id, *, lang="en"):
    """Be what fails most often."""
    note(f"send {order_id} {lang}")
    need_well("send")


async def push(order_id):
    """Be the async one."""
    await asyncio.sleep(0)
    note(f"push {order_id}")
    need_well("push")


def order(order_id):
    """Defer more work."""
    defer(stock, order_id)
    note(f"order {order_id}")
    need_well("order")


def stock(order_id):
    """Be deferred by a deferred call."""
    note(f"stock {order_id}")


def login(user, password):
    """Have an argument that is not recorded."""
    need_well("login")


def kill(order_id):
    """Fail at first, and end the process at the next attempt."""
    need_well("kill")
    os.kill(os.getpid(), signal.SIGKILL)


def wait(order_id):
    """Say that it runs, and wait for a word."""
    need_well("wait")
    note("waiting")
    while not Path("go").exists():
        time.sleep(0.005)
    note("waited")


def talk(order_id):
    """Write to the standard output."""
    sys.stdout.write("talking\n")
    need_well("talk")


EVIL = "[red]evil[/red]\x1b[2J\x07\u202egnirts\u2028\x9b31m<b>"
CALLS = {
    "send": lambda: defer(send, 17, lang="de"),
    "push": lambda: defer(push, 17),
    "order": lambda: defer(order, 17),
    "login": lambda: defer(login, "ada", password="hunter2"),  # noqa: S106 - that it is recorded nowhere is the test
    "lambda": lambda: defer(lambda: need_well("lambda")),
    "kill": lambda: defer(kill, 17),
    "wait": lambda: defer(wait, 17),
    "talk": lambda: defer(talk, 17),
    "evil": lambda: defer(send, EVIL, lang=EVIL).named(EVIL),
}


def app(environ, start_response):
    """Defer what the path names."""
    for name in environ["PATH_INFO"].strip("/").split("+"):
        CALLS[name]()
    start_response("201 Created", [])
    return [b"ordered"]


wrapped = PostludeMiddleware(app)


def request(path):
    """Send one request."""
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": f"/{path}",
        "SERVER_SOFTWARE": "test",
    }
    body = wrapped(environ, lambda *_: None)
    b"".join(body)
    body.close()
    drain()


if __name__ == "__main__":
    import shop  # by its importable name

    for path in sys.argv[1:]:
        shop.request(path)
