"""E2: `postlude failures list` and `show`: which calls failed, why, and from where."""

import json
import os
import re

import pytest

from postlude.failures import Batch

KEYS = {
    "id", "name", "function", "arguments", "state", "unit", "site", "exception",
    "traceback", "started", "ended", "attempt", "hint", "host", "pid", "retryable",
    "refusal",
}  # fmt: skip


@pytest.fixture
def failing(project):
    """A project some of whose calls have failed."""
    project.fail("send+push", "lambda+login")
    return project


def test_the_store_of_this_folder_is_found(failing):
    """Without a word, the store is postlude.db in this folder (E2)."""
    done = failing.postlude("failures", "list")
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    columns = ["ID", "When", "State", "Attempt", "Retry", "Name", "Exception"]
    assert head.split() == columns
    assert len(lines) == 4
    records = failing.records
    for line, record in zip(lines, reversed(records), strict=True):
        assert line.startswith(record.id[:8])
        assert record.name in line
        assert record.exception in line
    assert re.search("failed +1 +no +shop:login ", lines[0])
    assert re.search("failed +1 +yes +shop:send ", lines[-1])


def test_filters(failing):
    """List takes names, functions, states, times and a limit (E2)."""

    def names(*words):
        found = failing.json("failures", "list", *words)["failures"]
        return [record["name"] for record in found]

    assert len(names()) == 4
    assert names("--name", "shop:send") == ["shop:send"]
    assert names("--state", "lost") == []
    assert len(names("--state", "failed")) == 4
    assert len(names("--limit", "2")) == 2
    assert len(names("--since", "2h")) == 4
    assert names("--since", "0s") == []
    assert names("--since", "2100-01-01") == []
    assert len(names("--since", "1970-01-02T00:00+00:00")) == 4
    assert failing.postlude("failures", "list", "--state", "lost").stdout == (
        "No failures match.\n"
    )


def test_list_as_json(failing):
    """The keys of `list --json` are those that the documentation names (E2)."""
    document = failing.json("failures", "list", "-n", "1")
    (one,) = document["failures"]
    assert document["count"] == 4
    assert set(one) == KEYS
    assert failing.json("failures", "show", one["id"][:10]) == one
    assert one["unit"]["path"] == "/lambda+login"
    assert one["retryable"] is False
    assert "hunter2" not in json.dumps(document)


def test_an_empty_store(project):
    """No failures is good news, also with `--exit-code` (E2)."""
    project.heal()
    project.fail("send")
    assert project.postlude("failures", "list").stdout == "No failures.\n"
    assert project.postlude("failures", "list", "--exit-code").returncode == 0
    assert project.json("failures", "list") == {"count": 0, "failures": []}
    assert project.postlude("failures", "show").returncode == 2


def test_exit_code(failing):
    """`--exit-code` makes failures that were found a 1, for monitors (E2)."""
    assert failing.postlude("failures", "list", "--exit-code").returncode == 1
    words = "failures", "list", "--exit-code", "--since", "0s"
    assert failing.postlude(*words).returncode == 0


def test_show_tells_all(failing):
    """Show has the exception, place, unit, arguments and traceback (E2)."""
    record = next(r for r in failing.records if r.name == "shop:send")
    done = failing.postlude("failures", "show", record.id[:8])
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        record.id,
        "shop:send",
        record.exception,
        record.site,
        "POST /send+push, status 201",
        "order_id = 17",
        "lang = 'de'",
        record.traceback.rstrip(),
        f"postlude failures retry {record.id[:8]}",
    ):
        assert text in done.stdout
    newest = failing.postlude("failures", "show")
    assert failing.records[-1].id in newest.stdout


def test_show_says_why_not(failing):
    """Show says why a call cannot be run again (E2)."""
    refused = [record for record in failing.records if record.refusal is not None]
    assert len(refused) == 2
    for record in refused:
        done = failing.postlude("failures", "show", record.id)
        assert f"cannot be run again: {record.refusal}" in done.stdout
        assert "hunter2" not in done.stdout


@pytest.mark.parametrize("command", ["show", "retry", "forget"])
def test_unknown_and_ambiguous_ids(failing, command):
    """An id may be cut short while it is one; else the candidates are named (E2)."""
    store = failing.store
    (one, *_) = store.list()
    twin = one._replace(id=f"{one.id[:12]}{'0' * 20}", name="the twin")
    store.write(Batch((twin,)))
    store.close()
    done = failing.postlude("failures", command, one.id[:8])
    assert (done.returncode, done.stdout) == (2, "")
    assert "is the begin of several ids" in done.stderr
    assert "the twin" in done.stderr
    candidates = re.findall(r"^  (\w+)  ", done.stderr, re.MULTILINE)
    assert {one.id.startswith(c) for c in candidates} == {True, False}
    assert {twin.id.startswith(c) for c in candidates} == {True, False}
    for wrong in ("zz", "", one.id + "0", "%", "'"):
        done = failing.postlude("failures", command, wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert "No failure has an id" in done.stderr
    assert len(failing.records) == 5


def test_hostile_text_is_harmless(project):
    """Escapes, markup and turned text of strangers reach no terminal (E2)."""
    project.fail("evil")
    for command in (
        ("failures", "list"),
        ("failures", "show"),
        ("failures", "retry", "--all", "--dry-run"),
        ("failures", "retry", "--all"),
        ("stats",),
    ):
        for width in ("60", "120"):
            done = project.postlude(*command, COLUMNS=width, FORCE_COLOR="1")
            text = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", text)
            if command != ("stats",):
                assert "[red]evil[/red]" in re.sub(r"\s", "", text)
                assert r"\x1b[2J\x07\u202egnirts" in re.sub(r"\s", "", text)
    done = project.postlude("failures", "list", "--json")
    assert done.stdout.isascii()
    assert json.loads(done.stdout)["failures"][0]["name"].startswith(
        "[red]evil[/red]\x1b[2J"
    )


def test_narrow_terminals(failing):
    """On 60 columns nothing is wider than that, and nothing is left out (E2)."""
    done = failing.postlude("failures", "list", COLUMNS="60")
    assert max(map(len, done.stdout.splitlines())) <= 60
    for record in failing.records:
        assert record.id[:8] in done.stdout
        assert record.name in done.stdout
    assert "cannot be retried" in done.stdout
    for words in (("failures", "show"), ("stats",)):
        done = failing.postlude(*words, COLUMNS="60")
        assert max(map(len, done.stdout.splitlines())) <= 60


def test_no_color(failing):
    """A pipe gets no colour, a terminal does, and NO_COLOR wins (https://no-color.org)."""
    assert "\x1b" not in failing.postlude("failures", "list").stdout
    coloured = failing.postlude("failures", "list", FORCE_COLOR="1").stdout
    assert "\x1b[31m" in coloured
    done = failing.postlude("failures", "show", FORCE_COLOR="1", NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*3\d", done.stdout)


def test_a_terminal_without_unicode(failing):
    """What the output's encoding has no letters for is shown as its number (E2)."""
    done = failing.postlude("stats", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u2264 " in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("failures", "list"),
        ("failures", "list", "--json"),
        ("failures", "show"),
        ("failures", "retry", "--all", "--dry-run"),
        ("stats",),
    ],
)
def test_a_reader_that_has_gone(failing, words):
    """After `| head` has gone, a command ends and says nothing (E2)."""
    reader, writer = os.pipe()
    os.close(reader)
    with failing.start("-m", "postlude", *words, stdout=writer) as process:
        os.close(writer)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141
