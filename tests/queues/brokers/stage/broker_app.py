"""A web application whose requests hand calls to a queue."""

import broker_jobs
import uvicorn

import postlude
from postlude.asgi import PostludeMiddleware


async def respond(scope, receive, send):
    """Answer `/<option>/<job>/<what>` with 200, or fail with what the option raises."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    _, option, job, what = scope["path"].split("/")
    call = postlude.defer(getattr(broker_jobs, job), what)
    if option == "retry":
        call.retry(2, backoff=0.2)
    else:
        call.durable()
    body = call.id.encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


app = PostludeMiddleware(respond)

if __name__ == "__main__":
    import sys

    uvicorn.run(app, port=0, fd=int(sys.argv[1]), lifespan="on", log_level="info")
