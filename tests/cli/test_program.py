"""E2: the program itself: its help, its completion, and what it needs."""

import json
import re
import signal
import urllib.request

import pytest

COMMANDS = {
    "failures list",
    "failures show",
    "failures retry",
    "failures forget",
    "failures flush",
    "failures prune",
    "stats",
    "advise",
    "dashboard",
}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help(project, command):
    """Every command explains itself, and its exit codes (E2)."""
    done = project.postlude(*command.split(), "--help", COLUMNS="100")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"postlude {command}" in done.stdout
    assert "Exit codes:" in done.stdout
    assert "--store" in done.stdout
    assert ("--json" in done.stdout) == (command != "dashboard")


def test_without_a_word(project):
    """Without a command, the program shows what there is (E2)."""
    for words in ((), ("failures",)):
        done = project.postlude(*words)
        assert "list" in done.stdout + done.stderr or "stats" in done.stdout
        assert done.returncode == 2
    assert project.postlude("--version").stdout.startswith("postlude 0.")


def test_a_wrong_word(project):
    """A misspelt command or option is an exit of 2, with the usage (E2)."""
    for words in (("failure",), ("failures", "lst"), ("stats", "--jsn")):
        done = project.postlude(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Usage:" in done.stderr


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra(project, missing):
    """Without its libraries, the command says which one line installs them (E2)."""
    (project.folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {missing!r}:\n"
        "            raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    path = f"{project.folder}:{project.environment['PYTHONPATH']}"
    done = project.postlude("failures", "list", PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith("pip install 'postlude[cli]'\n")
    assert missing in done.stderr


@pytest.mark.parametrize(
    "shell",
    [
        "bash",
        pytest.param("zsh", marks=pytest.mark.wide),
        pytest.param("fish", marks=pytest.mark.wide),
    ],
)
def test_completion(project, shell):
    """The shell completes commands, options and ids; escapes stay out of it (E2)."""
    project.fail("send+evil")
    ids = {record.id[:8] for record in project.records}

    def complete(line):
        words = line.split(" ")
        done = project.run(
            "-m",
            "postlude",
            _POSTLUDE_COMPLETE=f"complete_{shell}",
            _TYPER_COMPLETE_ARGS=line,
            _TYPER_COMPLETE_FISH_ACTION="get-args",
            COMP_WORDS=line,
            COMP_CWORD=str(len(words) - 1),
        )
        assert done.stderr == ""
        assert "\x1b" not in done.stdout
        return done.stdout

    assert "failures" in complete("postlude fail")
    assert "retry" in complete("postlude failures re")
    assert "--dry-run" in complete("postlude failures retry --dr")
    assert ids <= set(re.findall(r"[0-9a-f]{8}", complete("postlude failures show ")))
    one = min(ids)
    assert one in complete(f"postlude failures retry {one[:4]}")
    (project.folder / "postlude.db").unlink()
    assert not re.search(r"[0-9a-f]{8}", complete("postlude failures show "))


def test_advise(project):
    """Advise says what the records show; with something to say it exits with 1 (E2)."""
    project.heal()
    project.fail("send")
    done = project.postlude("advise")
    assert (done.returncode, done.stdout) == (0, "Nothing to say.\n")
    assert project.json("advise") == {"advice": []}
    (project.folder / "well").unlink()
    project.fail(*["send"] * 60)
    found = project.json("advise", "--since", "1d", code=1)["advice"]
    assert set(found[0]) == {"kind", "weight", "subject", "sentence", "evidence"}
    done = project.postlude("advise")
    assert done.returncode == 1
    assert found[0]["sentence"].split(".")[0] in re.sub(r"\s+", " ", done.stdout)


def test_advise_scan(project):
    """`advise --scan` needs no store, and says what it read (E2)."""
    done = project.postlude("advise", "--scan", "nothere")
    assert (done.returncode, done.stdout) == (2, "")
    assert project.json("advise", "--scan", "shop.py") == {"findings": []}
    assert project.postlude("advise", "--scan", "shop.py").stdout == (
        "Nothing was found.\n"
    )


def test_dashboard(project):
    """Dashboard serves the store until Ctrl-C, and prints where (E2)."""
    project.fail("send")
    process = project.start(
        "-u", "-m", "postlude", "dashboard", "postlude.db", "--port", "0"
    )
    with process:
        line = process.stdout.readline()
        (address,) = re.findall(r"http://\S+", line)
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        page = opener.open(address, timeout=20).read().decode()
        assert "shop:send" in page
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode in {0, 130}


def test_dashboard_where_it_cannot_listen(project):
    """A port that is taken is an error in words (E2)."""
    project.fail("send")
    done = project.postlude("dashboard", "--host", "203.0.113.1", "--port", "80")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot listen at 203.0.113.1 port 80" in done.stderr


def test_json_is_one_document(project):
    """What `--json` writes is one document, whatever is asked (E2)."""
    project.fail("send")
    for words in (
        ("failures", "list"),
        ("failures", "show"),
        ("failures", "retry", "--all", "--dry-run"),
        ("failures", "prune", "--keep", "5"),
        ("stats",),
    ):
        json.loads(project.postlude(*words, "--json").stdout)
