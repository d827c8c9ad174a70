"""What became of the webhooks, for each way to send them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from postlude.failures import FailureRecord
from shop.journal import Entry
from shop.posting import Posted
from shop.webhook.receiver import OK, Request

WAYS = ("plain", "retry")
RUNS = 4
"""The first, and three retries."""
ANSWERED = "HTTPStatusError"
"""What the sender raises for an error answer; any other error means no answer."""


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was seen of one way, from all sides."""

    posted: list[Posted]
    """By the customers."""
    runs: dict[int, list[Entry]]
    """By the processes of the shop: the runs for each order, oldest first."""
    requests: dict[int, list[Request]]
    """By the receiver, for each order."""
    records: dict[int, FailureRecord]
    """By the failure store, for each order."""
    jobs: int
    """How many calls were handed to the queue."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of one way."""

    orders: int
    answered: int
    """First runs that were answered with 500."""
    unreachable: int
    """First runs that got no answer: the receiver was down."""
    jobs: int
    """Calls that the queue was given."""
    runs: int
    """Runs on the queue."""
    delivered: int
    """Orders that the receiver has taken."""
    lost: int
    recorded: int
    """Orders with a failure record."""
    duplicates: int
    """Deliveries that the receiver had taken before: by the idempotency id."""
    slowest: float | None
    """Seconds from the order's answer to the receiver's, for the last to come."""


def counts(seen: Seen) -> Counts:
    """Compute the numbers of one way."""
    taken = {order.id: _taken(seen, order.id) for order in seen.posted}
    first = [seen.runs[order.id][0] for order in seen.posted if seen.runs[order.id]]
    failed = [run.error for run in first if run.error is not None]
    answered = sum(error.startswith(ANSWERED) for error in failed)
    delivered = [order for order in seen.posted if taken[order.id]]
    ways = [taken[order.id][0].at - order.last_byte for order in delivered]
    return Counts(
        orders=len(seen.posted),
        answered=answered,
        unreachable=len(failed) - answered,
        jobs=seen.jobs,
        runs=sum(len(runs) for runs in seen.runs.values()) - len(first),
        delivered=len(delivered),
        lost=len(lost(seen)),
        recorded=len(seen.records),
        duplicates=_duplicates([each for some in taken.values() for each in some]),
        slowest=max(ways, default=None),
    )


def lost(seen: Seen) -> list[int]:
    """Return the orders whose webhook has not arrived."""
    return [order.id for order in seen.posted if not _taken(seen, order.id)]


def _taken(seen: Seen, order: int) -> list[Request]:
    return [each for each in seen.requests[order] if each.status == OK]


def _duplicates(taken: Sequence[Request]) -> int:
    """Count by the id; a request without one is told by its order."""
    times = Counter(each.key or each.order for each in taken)
    return times.total() - len(times)


def is_over(seen: Seen, order: int) -> bool:
    """Whether an order's webhook has arrived, or will not be sent any more."""
    runs = sum(run.error is not None for run in seen.runs[order])
    most = 1 if seen.posted and seen.posted[0].way == WAYS[0] else RUNS
    return bool(_taken(seen, order)) or runs >= most


def reasons(seen: Seen) -> list[tuple[str, int]]:
    """Return what the failure records say, the most frequent first."""
    said = Counter(_said(record) for record in seen.records.values())
    return said.most_common()


def _said(record: FailureRecord) -> str:
    name, _, rest = (record.exception or record.state).partition("(")
    text = rest.partition(" for url")[0]
    return f"{name}: {text[1:].removesuffix(')').removesuffix(text[:1])}"


def problems(seen: Seen) -> list[str]:
    """Return a sentence for everything that is not as it must be."""
    way = seen.posted[0].way if seen.posted else ""
    found = []
    for order in seen.posted:
        taken, record = _taken(seen, order.id), seen.records.get(order.id)
        named = f"order #{order.id} ({way})"
        if not taken and way != WAYS[0]:
            found.append(f"{named}: its webhook was lost in spite of its retries")
        if not taken and record is None:
            found.append(f"{named}: its webhook was lost, and nothing was recorded")
        if taken and record is not None:
            found.append(f"{named}: it arrived, and is recorded as {record.state}")
        if len({each.key for each in seen.requests[order.id]}) > 1:
            found.append(f"{named}: its idempotency id was not the same in every run")
    return found + _wrong_jobs(seen, way)


def _wrong_jobs(seen: Seen, way: str) -> list[str]:
    """Say if the queue was given other calls than those that had failed once."""
    failed = sum(
        bool(runs) and runs[0].error is not None for runs in seen.runs.values()
    )
    wanted = 0 if way == WAYS[0] else failed
    if seen.jobs == wanted:
        return []
    return [f"the queue was given {seen.jobs} jobs ({way}), not {wanted}"]
