"""E2: which store a command means, which application, and what is said if neither."""

import sqlite3

import pytest

from postlude.cli import main
from postlude.failures import Batch
from postlude.failures.memory import MemoryFailureStore
from postlude.failures.sqlite import SQLiteFailureStore

FLASK = """
from flask import Flask, current_app
from postlude import configure

configure(failures="night.db")
app = Flask(__name__)
app.config["HOST"] = "mail.example"

def create_app():
    return app

def send(order_id, *, lang):
    from shop import note
    note(f"{order_id} by {current_app.config['HOST']} as {current_app.name}")
"""
FASTAPI = """
from fastapi import FastAPI
from shop import push

app = FastAPI()
"""


def test_without_a_store(project):
    """No store at all: three beats, and an exit of 2 (E2)."""
    done = project.postlude("failures", "list")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: No failure store is named. Usually")
    assert "POSTLUDE_FAILURES" in done.stderr
    assert not (project.folder / "postlude.db").exists()


def test_the_order_of_places(project):
    """`--store` wins over the environment, and that over postlude.db here (E2)."""
    project.fail("send", store="a.db")
    project.fail("send", "send", store="sqlite:///b.db")
    project.fail("send", "send", "send")

    def count(*words, **environment):
        return project.json("failures", "list", *words, **environment)["count"]

    assert count() == 3
    assert count(POSTLUDE_FAILURES="b.db") == 2
    assert count("--store", "a.db", POSTLUDE_FAILURES="b.db") == 1
    assert count("--store", f"sqlite:///{project.folder}/b.db") == 2
    assert project.json("stats", "a.db")["functions"] != []


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("nothere.db", "There is no failure store at"),
        ("sqlite:///no/folder/x.db", "There is no failure store at"),
        ("memory", "lives and ends with the process"),
        ("banana", "which names no store"),
    ],
)
def test_a_store_that_is_not_there(project, where, text):
    """What is no store is not made: three beats, and an exit of 2 (E2)."""
    project.fail("send")
    for words in (("failures", "list"), ("failures", "retry", "--all"), ("stats",)):
        done = project.postlude(*words, "--store", where)
        assert (done.returncode, done.stdout) == (2, "")
        assert text in done.stderr
        assert "Traceback" not in done.stderr
    assert len(list(project.folder.glob("*.db"))) == 1


def test_a_corrupt_store(project):
    """A damaged file is said in words and left alone (E3)."""
    file = project.folder / "postlude.db"
    file.write_bytes(b"SQLite format 3\x00" + b"nonsense" * 1_000)
    before = file.read_bytes()
    done = project.postlude("failures", "list")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is damaged" in done.stderr
    assert file.read_bytes() == before


def test_a_newer_store(project):
    """A store of a newer Postlude is refused in words (E2)."""
    project.fail("send")
    with sqlite3.connect(project.folder / "postlude.db") as database:
        database.execute("UPDATE postlude_meta SET value = 99 WHERE key = 'version'")
    database.close()
    done = project.postlude("failures", "retry", "--all")
    assert (done.returncode, done.stdout) == (2, "")
    assert "tables of version 99" in done.stderr


def test_bad_settings_in_the_environment(project):
    """An impossible setting is said in words, by every command (E2)."""
    done = project.postlude("failures", "list", POSTLUDE_THREADS="many")
    assert (done.returncode, done.stdout) == (2, "")
    assert "POSTLUDE_THREADS sets threads to 'many'" in done.stderr


@pytest.mark.parametrize("app", ["web:app", "web:create_app()"])
def test_a_flask_application(project, app):
    """With `--app`, its store is found and calls run in its context (D4)."""
    (project.folder / "web.py").write_text(FLASK)
    project.fail("send", store="night.db")
    store = SQLiteFailureStore(project.folder / "night.db")
    (record,) = store.list()
    store.write(Batch((record._replace(function="web:send"),)))
    store.close()
    retry = "failures", "retry", "--all"
    without = project.postlude(*retry, "--store", "night.db")
    assert without.returncode == 1
    assert "hint: import the application: --app" in without.stdout
    done = project.json(*retry, "--app", app)
    assert done["counts"]["done"] == 1
    assert project.ran[-1] == "17 by mail.example as web"
    listed = project.json("failures", "list", POSTLUDE_APP=app)
    assert listed["count"] == 0


def test_a_fastapi_application(project):
    """`--app` takes what uvicorn takes (D4)."""
    (project.folder / "main.py").write_text(FASTAPI)
    project.fail("push")
    project.heal()
    done = project.json("failures", "retry", "--all", "--app", "main:app")
    assert done["counts"]["done"] == 1


@pytest.mark.parametrize(
    ("app", "text"),
    [
        ("nothere:app", "ModuleNotFoundError: No module named 'nothere'"),
        ("shop:nothere", "has no attribute 'nothere'"),
        ("broken:app", "ZeroDivisionError"),
        (":app", "cannot be imported"),
    ],
)
def test_an_application_that_is_not_there(project, app, text):
    """An application that cannot be imported is an error in words (E2)."""
    (project.folder / "broken.py").write_text("1 / 0")
    project.fail("send")
    done = project.postlude("failures", "list", "--app", app)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_the_variable_of_the_application_is_no_setting(project):
    """POSTLUDE_APP in the environment does not stop the application itself (E2)."""
    done = project.run(
        "shop.py", "send", POSTLUDE_APP="shop:app", POSTLUDE_FAILURES="postlude.db"
    )
    assert done.returncode == 0
    assert len(project.records) == 1


def test_called_with_a_store(own_process, capsys, monkeypatch, tmp_path):
    """`main(arguments, store)` is a command for frameworks, over their store (E2)."""
    monkeypatch.chdir(tmp_path)
    store = MemoryFailureStore(5)
    assert main(["failures", "list"], store) == 0
    assert capsys.readouterr().out == "No failures.\n"
    assert main(["failures", "list", "--store", "nothere.db"], store) == 2
    assert main(["failures", "nonsense"], store) == 2
    assert main(["--version"], store) == 0
