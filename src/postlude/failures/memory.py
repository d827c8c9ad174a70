"""The store that is always there: the newest records, in this process's memory."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postlude.failures import FailureRecord


class MemoryFailureStore:
    """Keeps the newest *kept* records; the oldest makes room. Any thread."""

    def __init__(self, kept: int) -> None:
        """Make an empty store."""
        self._records: deque[FailureRecord] = deque(maxlen=kept)

    def __repr__(self) -> str:
        return f"<MemoryFailureStore {len(self._records)} of {self._records.maxlen}>"

    def add(self, record: FailureRecord) -> None:
        """Keep one record."""
        self._records.append(record)

    def list(self) -> list[FailureRecord]:
        """Give the records kept, oldest first."""
        return list(self._records)

    def clear(self) -> None:
        """Forget all records."""
        self._records.clear()
