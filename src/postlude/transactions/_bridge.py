"""A sync callback for a connection that can only be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

Rows = list[tuple[Any, ...]]


async def in_thread(
    work: Callable[[Callable[[str, Mapping[str, object]], Rows]], None],
    execute: Callable[[str, Mapping[str, object]], Coroutine[Any, Any, Rows]],
) -> None:
    """Run *work* in a thread of its own; what it executes is awaited on this loop.

    So the loop goes on, and the connection is used where it belongs. Rare enough for
    a new thread each time. If the caller is cancelled, so is the statement that runs,
    and the next one is refused.
    """
    loop = asyncio.get_running_loop()
    steps: list[Future[Rows]] = []
    cancelled = False
    context = copy_context()

    async def step(sql: str, params: Mapping[str, object]) -> Rows:
        if cancelled:
            raise asyncio.CancelledError
        return await execute(sql, params)

    def run(sql: str, params: Mapping[str, object]) -> Rows:
        steps.append(asyncio.run_coroutine_threadsafe(step(sql, params), loop))
        return steps[-1].result()

    pool = ThreadPoolExecutor(1, thread_name_prefix="postlude-commit")
    try:
        await loop.run_in_executor(pool, lambda: context.run(work, run))
    except asyncio.CancelledError:
        cancelled = True
        for started in steps:
            started.cancel()
        raise
    finally:
        pool.shutdown(wait=False)
