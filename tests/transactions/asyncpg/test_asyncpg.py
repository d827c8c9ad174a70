"""B3 with asyncpg, as far as it needs no server."""

import asyncpg

from postlude.transactions import asyncpg as gates

gates.install()


def test_install_twice():
    """A second time changes nothing (A12)."""
    before = asyncpg.Connection.execute
    gates.install()
    assert asyncpg.Connection.execute is before
