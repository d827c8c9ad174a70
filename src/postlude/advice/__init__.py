"""Say in sentences with numbers what the records show: the five-second rule as a tool.

    for advice in advise(failure_store(), since=time.time() - 86_400):
        print(advice.sentence)

What is said stands on samples that are large enough for it; an empty list means that
there is nothing to say, or not enough to say it of.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from postlude.advice import _functions, _limits, _losses, _savings
from postlude.advice._advice import Advice
from postlude.advice._numbers import Numbers

if TYPE_CHECKING:
    from postlude.failures import FailureStore

__all__ = ["Advice", "advise"]


def advise(store: FailureStore, since: float, now: float | None = None) -> list[Advice]:
    """Give what the records and numbers of *store* show, the weightiest first.

    Args:
        store: any failure store; it is only read.
        since: Unix seconds; what is older is not looked at.
        now: Unix seconds of the look; the clock's, if it is not given.

    Raises:
        StoreError: the store cannot be read.
    """
    if now is None:
        now = time.time()
    numbers = Numbers(store.tallies(since), store.processes(since))
    records = list(store.list(since=since))
    found = [
        *_losses.lost(numbers, records, now),
        *_losses.overflowed(numbers),
        *_functions.failing(numbers, records),
        *_functions.slow(numbers),
        *_limits.met(numbers, now),
        *_functions.rolled_back(numbers),
        *_savings.saved(numbers, since),
    ]
    return sorted(found, key=lambda advice: (-advice.weight, advice.subject))
