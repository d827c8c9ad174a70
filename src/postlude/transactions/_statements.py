"""What the text of a statement tells: whether it writes, what becomes of savepoints."""

from __future__ import annotations

import re

_GAP = r"(?>(?:\s|;|--[^\n]*(?:\n|$)|(?>/\*.*?\*/))*)"
_READS = re.compile(
    rf"{_GAP}\(*{_GAP}(?:SELECT|VALUES|TABLE|SHOW|DESC|DESCRIBE|PRAGMA|SET|RESET|USE|"
    r"DECLARE|FETCH|MOVE|CLOSE|BEGIN|START|SAVEPOINT|RELEASE|PREPARE|XA|COMMIT|END|"
    r"ROLLBACK|ABORT|LISTEN|UNLISTEN|LOCK|COPY\b.*\bTO\s+STDOUT)\b",
    re.IGNORECASE | re.DOTALL,
)
_MAY_READ = re.compile(rf"{_GAP}(?:WITH|EXPLAIN|ANALYZE)\b", re.IGNORECASE | re.DOTALL)
_INNER_WRITE = re.compile(
    rf"(?:[()]|ANALYZE){_GAP}(?:INSERT|UPDATE|DELETE|MERGE)\b",
    re.IGNORECASE | re.DOTALL,
)
_NAME = r"[\"`\[]?[^\s\"`\];]+"
_CONTROL = re.compile(
    rf"{_GAP}(?:"
    r"(?P<begin>BEGIN|START\s+TRANSACTION)|"
    r"(?P<commit>COMMIT|END)|"
    rf"SAVEPOINT\s+(?P<savepoint>{_NAME})|"
    rf"RELEASE\s+(?:SAVEPOINT\s+)?(?P<release>{_NAME})|"
    r"ROLLBACK\s+(?:(?:WORK|TRANSACTION)\s+)?TO\s+(?:SAVEPOINT\s+)?"
    rf"(?P<rollback_to>{_NAME})|"
    r"(?P<rollback>ROLLBACK|ABORT)"
    r")(?!\w|\s+PREPARED\b)",
    re.IGNORECASE | re.DOTALL,
)
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")


def writes(statement: str) -> bool:
    """Tell whether a statement may change data: all may that are not known to read."""
    if statement.startswith(("INSERT ", "UPDATE ", "DELETE ")):
        return True  # as most writers say it; the patterns would find it out, too
    if _READS.match(statement):
        return False
    return not _MAY_READ.match(statement) or bool(_INNER_WRITE.search(statement))


def control(statement: str) -> tuple[str, str] | None:
    """Give what a statement does to its transaction, and the savepoint it names.

    One of begin, commit, savepoint, release, rollback_to, rollback; None for the rest.
    """
    said = _CONTROL.match(statement)
    if said is None or said.lastgroup is None:
        return None
    return said.lastgroup, said[said.lastgroup].strip('"`[]')


def pyformat(statement: str) -> str:
    """Turn `:name` into `%(name)s`, where `sqlalchemy.text()` sees a parameter too."""
    escaped = statement.replace("%", "%%")
    return _PARAMETER.sub(r"%(\1)s", escaped).replace("\\:", ":")
