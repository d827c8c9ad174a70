"""C2 with psycopg 3, as far as it needs no server."""

import sys
from types import ModuleType, SimpleNamespace

import psycopg
import pytest
from psycopg import sql
from psycopg.pq import TransactionStatus as Status

from postlude import DeferScope, defer
from postlude.transactions import psycopg as gates

gates.install()


def test_install_twice():
    """A second time changes nothing (A12)."""
    before = psycopg.Connection.commit, psycopg.AsyncCursor.execute
    gates.install()
    assert (psycopg.Connection.commit, psycopg.AsyncCursor.execute) == before


def test_subclasses_are_covered():
    """What inherits is wrapped with what it inherits (A12)."""
    assert psycopg.ClientCursor.execute is psycopg.Cursor.execute


@pytest.mark.parametrize("wrote", [True, False])
def test_a_connection_that_goes_back_to_its_pool(monkeypatch, wrote):
    """The pool says rollback() then, which is no reason to drop what only read (C2)."""

    class Pool:
        """Stands for psycopg_pool's, which is not installed here."""

        def putconn(self, conn):
            """Take a connection back."""
            conn.given_back = True

    class Connection:
        """Stands for a connection."""

    pools = ModuleType("psycopg_pool")
    pools.ConnectionPool = pools.AsyncConnectionPool = Pool
    monkeypatch.setitem(sys.modules, "psycopg_pool", pools)
    gates.install()
    connection = Connection()
    known = gates._known(connection)
    with DeferScope():
        known.stack.begin("db")
        if wrote:
            known.stack.wrote()
        call = defer(list)
        Pool().putconn(connection)
    assert connection.given_back
    assert call.state == ("dropped" if wrote else "done")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELECT 1", "SELECT 1"),
        (b"SELECT 1", "SELECT 1"),
        (sql.SQL("SELECT {}").format(sql.Identifier("a")), 'SELECT "a"'),
        (object(), ""),
    ],
)
def test_the_text_of_a_query(query, text):
    """In every form; what has none counts as a write (C2)."""
    assert gates._text_of(query, None) == text


@pytest.mark.parametrize("end", ["commit", "rollback", "a commit that fails", "broken"])
def test_a_prepared_transaction_is_still_open(end):
    """The connection is idle, and the transaction waits for its second phase (B3)."""

    class Connection:
        """Stands for a connection to a server that prepares transactions."""

        autocommit = False
        info = pgconn = SimpleNamespace(
            host="db", port=5432, dbname="shop", transaction_status=Status.INTRANS
        )

    connection = Connection()
    known = gates._known(connection)
    with DeferScope():
        gates._look(connection)
        call = defer(list)
        if end == "broken":
            connection.pgconn.transaction_status = Status.INERROR
            gates._look(connection)
        known.meant = "prepare"
        connection.pgconn.transaction_status = Status.IDLE
        gates._look(connection)
        assert bool(known.stack) == (end != "broken")
        known.meant = "rollback" if end == "rollback" else "commit"
        gates._look(connection, failed=end == "a commit that fails")
    assert call.state == ("done" if end == "commit" else "dropped")
