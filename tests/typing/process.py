"""D6, D7, E1: settings, drain and failures are typed."""

from collections.abc import Iterable
from typing import Literal, assert_type

from postlude import Settings, configure, drain, failure_store, settings
from postlude.failures import FailureRecord, FailureStore

# -- what is right ------------------------------------------------------------

configure()
configure(threads=8, concurrency=100, max_pending=1_000, overflow="drop")
configure(grace=2.5, soft_limit=5, strict=True, failures_kept=10)
assert_type(settings(), Settings)
assert_type(settings().threads, int)
assert_type(settings().overflow, Literal["wait", "hand_over", "drop"])
assert_type(settings().grace, float)

drain()
drain(2.5)
drain(grace=None)

store = failure_store()
assert_type(store, FailureStore)
assert_type(store.list(), Iterable[FailureRecord])
for record in store.list():
    assert_type(record.name, str)
    assert_type(record.arguments, dict[str, str])
    assert_type(record.unit, dict[str, object])
    assert_type(record.exception, str | None)
    assert_type(record.started, float | None)

# -- what is wrong ------------------------------------------------------------

configure(threads="8")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
configure(overflow="hand over")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
configure(thread=8)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
configure(8)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
drain("soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
settings().threads = 8  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
