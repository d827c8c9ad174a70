"""Which statements write: all that are not known to read."""

import pytest

from postlude.transactions._statements import writes

READ = [
    "SELECT 1",
    "select * from t for update",
    "  \n select 1",
    "-- a comment\nSELECT 1",
    "/* INSERT */ /* b */ SELECT 1",
    "(SELECT 1) UNION (SELECT 2)",
    "((select 1))",
    "VALUES (1)",
    "TABLE t",
    "SHOW max_connections",
    "PRAGMA foreign_keys = ON",
    "SET LOCAL x = 1",
    "SAVEPOINT a",
    "ROLLBACK TO SAVEPOINT a",
    "RELEASE SAVEPOINT a",
    "XA END 'x'",
    "DESCRIBE t",
    "WITH a AS (SELECT 1) SELECT * FROM a FOR UPDATE",
    "WITH a AS (SELECT deleted FROM t) SELECT 'DELETE' FROM a",
    "EXPLAIN INSERT INTO t VALUES (1)",
    "EXPLAIN ANALYZE SELECT 1",
]
WRITE = [
    "INSERT INTO t VALUES (1)",
    "\tupdate t set x = 1",
    "DELETE FROM t",
    "REPLACE INTO t VALUES (1)",
    "MERGE INTO t USING u ON (1 = 1)",
    "TRUNCATE t",
    "CREATE TABLE t (x int)",
    "DROP TABLE t",
    "CALL something()",
    "COPY t FROM STDIN",
    "NOTIFY channel",
    "-- SELECT\nDELETE FROM t",
    "/* SELECT */ DELETE FROM t",
    "WITH a AS (INSERT INTO t VALUES (1) RETURNING x) SELECT * FROM a",
    "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
    "WITH a AS (SELECT 1) /* x */ UPDATE t SET x = 1",
    "with a as (\n  -- x\n  delete from t returning x) select 1",
    "EXPLAIN ANALYZE DELETE FROM t",
    "EXPLAIN (ANALYZE) DELETE FROM t",
    "ANALYZE UPDATE t SET x = 1",
    "SELECTED",
]


@pytest.mark.parametrize("statement", READ)
def test_these_read(statement):
    """Read-only work is no reason to drop."""
    assert not writes(statement)


@pytest.mark.parametrize("statement", WRITE)
def test_these_write(statement):
    """Whoever wrote and did not commit has lost something (C2)."""
    assert writes(statement)


def test_a_long_statement_is_read_in_no_time():
    """Comments and brackets in numbers take no more than their length."""
    for part in ("/* x */ ", "(", "-- x\n", "/*", "; "):
        writes(part * 50_000 + "x")
        writes("WITH " + part * 50_000 + "x")
