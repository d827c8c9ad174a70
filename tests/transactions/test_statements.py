"""What the text of a statement tells (B3, C2)."""

import pytest

from postlude.transactions._statements import control, writes


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("BEGIN;", ("begin", "")),
        ("start  transaction READ ONLY", ("begin", "")),
        ("-- now\nCOMMIT", ("commit", "")),
        ("end", ("commit", "")),
        ("SAVEPOINT s1;", ("savepoint", "s1")),
        ('SAVEPOINT "s 1"', ("savepoint", "s")),
        ("RELEASE SAVEPOINT s1;", ("release", "s1")),
        ("RELEASE `s1`", ("release", "s1")),
        ("ROLLBACK TO SAVEPOINT s1", ("rollback_to", "s1")),
        ("rollback transaction to s1", ("rollback_to", "s1")),
        ("ROLLBACK;", ("rollback", "")),
        ("ABORT", ("rollback", "")),
        ("COMMIT PREPARED 'x'", None),
        ("ROLLBACK PREPARED 'x'", None),
        ("ENDING", None),
        ("SELECT 'COMMIT'", None),
        ("", None),
    ],
)
def test_statements_that_end_or_begin(statement, what):
    """They are told by their first words (B3)."""
    said = control(statement)
    assert said == what if what is None or what[1] else said[0] == what[0]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1", False),
        ("  /* why */ (select 1)", False),
        ("COPY orders TO STDOUT", False),
        ("COPY (SELECT 1) TO STDOUT", False),
        ("COPY orders FROM STDIN", True),
        ("WITH a AS (SELECT 1) SELECT 2", False),
        ("WITH a AS (DELETE FROM orders RETURNING *) TABLE a", True),
        ("WITH a AS (SELECT 1) INSERT INTO orders TABLE a", True),
        ("EXPLAIN SELECT 1", False),
        ("EXPLAIN ANALYZE DELETE FROM orders", True),
        ("INSERT INTO orders VALUES (1)", True),
        ("CREATE TABLE orders ()", True),
        ("CALL something()", True),
        ("", True),
    ],
)
def test_statements_that_write(statement, expected):
    """All do that are not known to read (C2)."""
    assert writes(statement) is expected
