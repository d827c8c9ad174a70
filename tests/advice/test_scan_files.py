"""Whatever lies in a folder, the scan reads what it can and says what it cannot."""

import os
import random
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import postlude.scan
from postlude.scan import Finding, scan, survey

GOOD = """
from flask import Flask
import requests
app = Flask(__name__)
@app.post("/")
def index():
    requests.post("x")
    return 1
"""


def notes(root):
    """Give the notes of a scan, and see that the good file was read all the same."""
    found = scan(root)
    assert [f.file for f in found if f.kind == "call"] == ["good.py"]
    return {f.file: (f.line, f.sentence) for f in found if f.kind == "note"}


@pytest.mark.parametrize(
    ("name", "content", "line", "text"),
    [
        ("old.py", b"print 'hello'\n", 1, "is no Python that this version can parse"),
        ("old.py", b"\ntry:\n  x\nexcept A, e:\n  pass", 4, "is no Python that this"),
        ("junk.py", bytes(range(256)), 0, "no Python"),
        ("null.py", b"x = 1\0", 0, "null"),
        ("latin.py", b"x = '\xe4'\n", 0, "no Python"),
        ("coding.py", b"# coding: nonsense\n", 0, "no Python"),
        ("deep.py", b"(" * 5000 + b")" * 5000, 0, "deep.py"),
        ("sum.py", b"x = 1" + b" + 1" * 400, 0, "nested more than 150 levels deep"),
        ("chain.py", b"a" + b".a" * 100_000, 0, "chain.py"),
        ("huge.py", b"x = 1\n" * 400_000, 0, "has 2,400,000 bytes and was not read"),
    ],
)
def test_what_cannot_be_read_is_a_note(tree, name, content, line, text):
    """Python 2, junk, other encodings, huge and deep files: a note each (advice)."""
    root = tree({"good.py": GOOD})
    (root / name).write_bytes(content)
    found = notes(root)
    assert list(found) == [name]
    if line:
        assert found[name][0] == line
    assert text in found[name][1]


def test_warnings_of_what_is_read_are_not_ours(tree):
    """An invalid escape in somebody's file warns nobody (advice)."""
    root = tree({"good.py": GOOD, "escape.py": "x = '\\d'\nif x is 1: pass\n"})
    assert notes(root) == {}


def test_symbolic_links_are_not_followed(tree):
    """A loop of links ends, and no file is read twice (advice)."""
    root = tree({"good.py": GOOD})
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "again.py").symlink_to(root / "good.py")
    (root / "gone.py").symlink_to(root / "nothing.py")
    assert notes(root) == {}


def test_what_is_no_file_is_a_note(tree):
    """A pipe or a socket named like a module is not waited for (advice)."""
    root = tree({"good.py": GOOD})
    os.mkfifo(root / "pipe.py")
    assert notes(root) == {
        "pipe.py": (0, "pipe.py is no regular file and was not read.")
    }


def test_a_folder_that_cannot_be_listed_is_a_note(tree, monkeypatch):
    """What may not be read is said, and the rest is read (advice)."""
    root = tree({"good.py": GOOD, "private/a.py": GOOD})
    real = os.scandir

    def refuse(path):
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert notes(root) == {
        "private": (0, "private cannot be listed: Permission denied.")
    }


@pytest.mark.parametrize(
    "folder",
    ["tests", "test", "migrations", "node_modules", ".venv", "venv", "site-packages"],
)
def test_other_peoples_code_and_tests_are_left_out(tree, folder):
    """Installed packages, tests and migrations are not the project (advice)."""
    root = tree({"good.py": GOOD, f"{folder}/views.py": GOOD, "test_views.py": GOOD})
    assert notes(root) == {}
    assert survey(root).files == 1


def test_an_environment_is_known_by_its_file(tree):
    """A virtual environment of any name is left out (advice)."""
    root = tree({"good.py": GOOD, "my/pyvenv.cfg": "", "my/lib/x.py": GOOD})
    assert notes(root) == {}


def test_a_folder_that_is_named_is_read(tree):
    """Left out is what lies below: whoever names a folder `tests` means it (advice)."""
    root = tree({"tests/good.py": GOOD})
    assert [f.file for f in scan(root / "tests")] == ["good.py"]


def test_one_file_can_be_named(tree):
    """A path may be a file (advice)."""
    root = tree({"good.py": GOOD})
    assert [f.kind for f in scan(root / "good.py")] == ["call"]


def test_more_can_be_left_out(tree):
    """`leave_out` passes by what only the user knows (advice)."""
    root = tree({"good.py": GOOD, "old_site/views.py": GOOD})
    assert len(scan(root)) == 2
    assert len(survey(root, leave_out=["old_*"]).findings) == 1


def test_nothing_there_is_an_error(tmp_path):
    """A path that does not exist is named, with the fix (advice)."""
    with pytest.raises(FileNotFoundError, match="Name the folder"):
        scan(tmp_path / "nothing")


def test_an_empty_folder_gives_nothing(tmp_path):
    """No file, no finding (advice)."""
    assert survey(tmp_path) == ((), (), 0)


def test_nothing_is_imported_or_run(tree):
    """Reading a file runs none of it (advice)."""
    root = tree({"good.py": GOOD, "bomb_module.py": "raise SystemExit('ran')\n"})
    assert notes(root) == {}
    assert "bomb_module" not in sys.modules
    assert "celery" not in sys.modules


def test_hostile_names_pass_through(tree):
    """Control characters in file names are data, for whoever shows them (advice)."""
    root = tree({"good.py": GOOD})
    (root / "a\x1b[31m.py").write_text("print 'x'")
    found = [f for f in scan(root) if f.kind == "note"]
    assert found[0].file == "a\x1b[31m.py"


SOURCES = [
    path.read_text(encoding="utf-8")
    for path in sorted(Path(postlude.scan.__file__).parent.glob("*.py"))
]


@given(st.randoms(use_true_random=False))
def test_no_source_makes_it_fail(randoms: random.Random) -> None:
    """Any mixture of lines gives findings or notes, never an exception (advice)."""
    with_lines = [randoms.choice(SOURCES).splitlines() for _ in range(3)]
    texts = [
        "\n".join(line for line in lines if randoms.random() > 0.02)
        for lines in with_lines
    ]
    with tempfile.TemporaryDirectory() as folder:
        for i, text in enumerate(texts):
            (Path(folder) / f"m{i}.py").write_text(text, encoding="utf-8")
        assert all(isinstance(f, Finding) for f in scan(folder))


CYCLES = {
    "imports": {"a.py": "from b import x", "b.py": "from a import x\nx.task()"},
    "stars": {"a.py": "from b import *\ny.z()", "b.py": "from a import *"},
    "classes": {"a.py": "class A(B): pass\nclass B(A): pass\nA().x()"},
    "itself": {"a.py": "class A(A): pass\nx = x\ny = y.z()\nA().b()\ny.task()"},
    "assignments": {"a.py": "x = y\ny = x\n@x.task\ndef f(): f.delay()"},
    "calls": {
        "a.py": "from flask import Flask\napp = Flask('x')\n"
        "@app.get('/')\ndef f(): g()\ndef g(): f()"
    },
}


@pytest.mark.parametrize("cycle", CYCLES)
def test_cycles_end(tree, cycle):
    """Imports, bases, assignments and calls may go in circles (advice)."""
    assert scan(tree(CYCLES[cycle])) == []


def test_it_opens_no_connection(tree, monkeypatch):
    """A scan is about files only (advice)."""
    monkeypatch.setattr(socket, "socket", None)
    assert notes(tree({"good.py": GOOD})) == {}
