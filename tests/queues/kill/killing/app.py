"""The web application under the knife: `uvicorn killing.app:app`.

`POST /<option>/<function>/<id>` defers that function, and answers 200 when the call is
acknowledged. Options are those of the ladder, and `behind`: a durable call after one in
memory that waits for the gate. `retries` and `times` are in the query.
With `wait=1` the request then runs until the gate is opened.
"""

from urllib.parse import parse_qs

from anyio import to_thread

from killing import calls
from postlude import defer, queue
from postlude.asgi import PostludeMiddleware


def ask(option: str, function: str, name: str, numbers: dict[str, int]) -> None:
    """Defer what a request asks for."""
    fn = getattr(calls, function)
    args = (name, numbers["times"]) if "times" in numbers else (name,)
    retries = numbers.get("retries", 3)
    if option == "queue":
        queue(fn, *args, retries=retries, backoff=0.1)
        return
    if option == "behind":
        defer(calls.wait, "before")
    call = defer(fn, *args).retry(retries, backoff=0.1)
    if option in {"durable", "behind"}:
        call.durable()


async def site(scope, receive, send):
    """Serve the application itself."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    _, option, function, name = scope["path"].split("/")
    query = parse_qs(scope["query_string"].decode())
    ask(option, function, name, {key: int(n) for key, (n,) in query.items()})
    if "wait" in query:
        await to_thread.run_sync(calls.wait, "request")
    head = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b"ok"})


app = PostludeMiddleware(site)
