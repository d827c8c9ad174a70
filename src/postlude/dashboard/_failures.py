"""What the list of failures shows. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

if TYPE_CHECKING:
    from postlude.failures import FailureRecord

PER_PAGE = 50
LOOKED_AT = 1_000
"""Records that a page looks at, the newest: some MB, a hundred at the worst."""
STATES = {"failed": "failed", "timed_out": "timed out", "lost": "lost"}
_LONGEST = 200
"""Characters of a filter."""


class Filter(NamedTuple):
    """What is looked for; empty means all."""

    state: str = ""
    function: str = ""
    text: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        """Read the query; what is impossible there is left out."""
        state = query.get("state", "")
        return cls(
            state=state if state in STATES else "",
            function=query.get("function", "")[:_LONGEST].strip(),
            text=query.get("text", "")[:_LONGEST].strip(),
        )

    def __bool__(self) -> bool:
        return any(self)

    def query(self, **more: object) -> str:
        """Give the query that asks for it again, with the question mark."""
        asked = {**self._asdict(), **more}
        text = urlencode(
            {k: v for k, v in asked.items() if v not in {"", None}}, errors="replace"
        )
        return f"?{text}" if text else ""

    def holds(self, record: FailureRecord) -> bool:
        """Tell whether *record* has the text anywhere, in any case of letters."""
        wanted = self.text.casefold()
        return not wanted or any(
            wanted in part.casefold()
            for part in (
                record.id,
                record.name,
                record.function,
                record.site,
                record.exception or "",
                record.traceback or "",
                *map(str, record.unit.values()),
                *(f"{name}={value}" for name, value in record.arguments.items()),
            )
        )


class Page(NamedTuple):
    """One page of the list."""

    filter: Filter
    records: list[FailureRecord]
    number: int
    pages: int
    found: int
    is_cut: bool
    """Whether there are older records that were not looked at."""
    total: int
    """How many the store keeps."""
    functions: list[tuple[str, int]]

    @classmethod
    def of(
        cls,
        found: Sequence[FailureRecord],
        everywhere: Iterable[FailureRecord],
        total: int,
        asked: Filter,
        number: str,
    ) -> Page:
        """Choose from *found*, which the store gave, oldest first."""
        is_cut = len(found) > LOOKED_AT
        kept = [r for r in reversed(found[-LOOKED_AT:]) if asked.holds(r)]
        pages = max(1, -(-len(kept) // PER_PAGE))
        place = min(int(number), pages) if number.isdecimal() and len(number) < 9 else 1  # noqa: PLR2004 - longer is no page
        place = max(place, 1)
        functions = Counter(record.function for record in everywhere)
        if asked.function and asked.function not in functions:
            functions[asked.function] = 0
        return cls(
            filter=asked,
            records=kept[(place - 1) * PER_PAGE : place * PER_PAGE],
            number=place,
            pages=pages,
            found=len(kept),
            is_cut=is_cut,
            total=total,
            functions=sorted(functions.items()),
        )
