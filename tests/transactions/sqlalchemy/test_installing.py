"""What is installed, what it is called in records, and what it leaves alone."""

import subprocess
import sys

import pytest
from orders import Order, call
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Transaction
from sqlalchemy.orm import Session

from postlude import DeferScope, defer
from postlude.transactions import sqlalchemy as gates


def test_a_second_time_does_nothing(sqlite_engine):
    """Two parts of an application may install it; each method is wrapped once."""
    before = Connection.begin, Transaction.commit, Session.close
    assert gates.install() is None
    assert (Connection.begin, Transaction.commit, Session.close) == before
    with DeferScope(), Session(sqlite_engine) as session:
        session.add(Order(name="a"))
        deferred = defer(call)
        session.flush()
        assert len(deferred._gates) == 1
        assert len(defer(call)._gates) == 1  # its connection goes by the same
        session.commit()


@pytest.mark.parametrize("name", ["postlude", "postlude.transactions"])
def test_nobody_else_loads_sqlalchemy(name):
    """Postlude works without any ORM (A11)."""
    program = f"""
import {name}, sys
assert "sqlalchemy" not in sys.modules
ran = []
with postlude.DeferScope():
    postlude.defer(ran.append, 1)
assert ran == [1]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_asyncio_is_not_loaded():
    """Nor is greenlet needed where nobody uses asyncio."""
    program = """
import sys
from postlude.transactions.sqlalchemy import install
install()
assert "sqlalchemy.ext.asyncio" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite://", "sqlite://"),
        ("sqlite:///shop.db?timeout=3", "sqlite:///shop.db"),
        (
            "postgresql+psycopg://me:secret@db.local:5433/shop?password=secret",
            "postgresql://db.local:5433/shop",
        ),
        ("mariadb+pymysql://me:secret@db.local/shop", "mariadb://db.local/shop"),
    ],
)
def test_records_have_no_secrets(url, shown):
    """Neither user nor password nor options, which may hold one (C2)."""
    engine = create_engine(url)
    with DeferScope(), Session(engine) as session:
        session.begin()
        deferred = defer(call)
        session.rollback()
    assert deferred.rolled_back == shown


def test_a_session_without_a_database():
    """It has a name, too."""
    with DeferScope(), Session() as session:
        session.begin()
        deferred = defer(call)
        session.rollback()
    assert deferred.rolled_back == "a session of SQLAlchemy"
