"""The settings: where they come from, and that a wrong one is an error at start."""

from pathlib import Path

import pytest

from postlude import Settings, SettingsError, _call, configure, failure_store, settings
from postlude import _settings as internal
from postlude.queues import Capabilities, _opening

SETTINGS = {
    "threads": (8, "8"),
    "concurrency": (50, "50"),
    "max_pending": (100, "100"),
    "overflow": ("drop", "drop"),
    "grace": (2.5, "2.5"),
    "soft_limit": (0.5, "0.5"),
    "commit_wait": (1.5, "1.5"),
    "inspector": (True, "true"),
    "strict": (True, "true"),
    "failures": ("memory", "memory"),
    "failures_kept": (10, "10"),
    "failures_days": (1.5, "1.5"),
    "record_arguments": (False, "false"),
    "redact": (("iban", "card"), "iban, card"),
    "modules": (("shop",), "shop"),
    "queue": ("sqlite:///jobs.db", "sqlite:///jobs.db"),
    "queue_lease": (2.5, "2.5"),
    "queue_threads": (0, "0"),
    "instruments": (("logging",), "logging"),
    "server_timing": (True, "1"),
}
each = pytest.mark.parametrize(
    ("name", "value", "text"),
    [(name, value, text) for name, (value, text) in SETTINGS.items()],
    ids=SETTINGS,
)


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch):
    """Have the core tested without the library of an engine."""
    monkeypatch.setattr(_opening, "open_queue", lambda where: _Engine())
    monkeypatch.setattr(_call, "carrier", None)


class _Engine:
    can = Capabilities(*[False] * 8, 0.0)

    def close(self):
        pass


def test_every_setting_is_tested_here():
    """The table above has all settings, and each has a default of its own (D6)."""
    assert set(SETTINGS) == set(Settings._fields)
    defaults = Settings()
    assert all(
        getattr(defaults, name) != value for name, (value, _) in SETTINGS.items()
    )


def test_without_a_word_the_defaults_hold():
    """Nobody has to set anything (D6, D7)."""
    assert settings() == Settings()


@each
def test_configure_sets_each(name, value, text):
    """`configure` changes the setting it names, and no other (D6)."""
    configure(**{name: value})
    assert settings() == Settings()._replace(**{name: value})


@each
def test_the_environment_sets_each(name, value, text, monkeypatch):
    """Each setting can come from the environment, as text (D6)."""
    monkeypatch.setenv(f"POSTLUDE_{name.upper()}", text)
    internal.reset()
    assert settings() == Settings()._replace(**{name: value})


@each
def test_a_frameworks_settings_set_each(name, value, text):
    """Each setting can come from a framework's settings, in capitals (D6)."""
    internal.configure_framework({name.upper(): value}, "POSTLUDE")
    assert settings() == Settings()._replace(**{name: value})


def test_code_wins_over_environment_over_framework(monkeypatch):
    """Who is nearer to the process wins, setting by setting (D6)."""
    internal.configure_framework({"THREADS": 1, "CONCURRENCY": 1, "GRACE": 1}, "Django")
    monkeypatch.setenv("POSTLUDE_THREADS", "2")
    monkeypatch.setenv("POSTLUDE_CONCURRENCY", "2")
    configure(threads=3)
    loaded = settings()
    assert (loaded.threads, loaded.concurrency, loaded.grace) == (3, 2, 1)


def test_the_last_configure_wins_by_name():
    """A second `configure` keeps what it does not name (D6)."""
    configure(threads=2, grace=1)
    configure(threads=3)
    assert (settings().threads, settings().grace) == (3, 1)


IMPOSSIBLE = [
    ("threads", 0),
    ("threads", -1),
    ("threads", 1.5),
    ("threads", True),
    ("threads", None),
    ("threads", "many"),
    ("threads", float("inf")),
    ("concurrency", 0),
    ("max_pending", 0),
    ("overflow", "hand over"),
    ("overflow", None),
    ("overflow", ["wait"]),
    ("grace", -1),
    ("grace", float("nan")),
    ("grace", float("inf")),
    ("grace", "8s"),
    ("grace", None),
    ("grace", True),
    ("grace", []),
    ("soft_limit", 0),
    ("soft_limit", -5),
    ("soft_limit", "soon"),
    ("inspector", "maybe"),
    ("inspector", 2),
    ("inspector", "none"),
    ("strict", "maybe"),
    ("strict", 2),
    ("strict", None),
    ("failures_kept", 0),
    ("failures_kept", {}),
    ("failures", 1),
    ("failures", ""),
    ("failures_days", 0),
    ("record_arguments", "maybe"),
    ("redact", 1),
    ("redact", ("iban", "")),
    ("modules", (1,)),
    ("instruments", "datadog"),
    ("server_timing", None),
]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_an_error_in_three_beats(name, value):
    """The error says where, what, the usual cause and what would be right (D6)."""
    with pytest.raises(SettingsError) as caught:
        configure(**{name: value})
    text = str(caught.value)
    assert text.startswith(
        f"configure() sets {name} to {value!r}, which is impossible. "
    )
    assert "Usually a unit or a type was mixed up. Use " in text
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", "8"),
        ("threads", 8.0),
        ("grace", 0),
        ("grace", "0"),
        ("grace", 1),
        ("strict", "0"),
        ("strict", "TRUE"),
        ("strict", "False"),
    ],
)
def test_what_is_clear_is_understood(name, value):
    """Texts of the environment and whole floats have their obvious meaning (D6)."""
    configure(**{name: value})
    assert type(getattr(settings(), name)) is type(getattr(Settings(), name))


def test_an_unknown_name_is_an_error_in_three_beats():
    """The error names the unknown setting and lists those that there are (D6)."""
    with pytest.raises(SettingsError) as caught:
        configure(thread=8)
    text = str(caught.value)
    assert text.startswith(
        "configure() sets 'thread', which is no setting of Postlude."
    )
    assert "Usually it is misspelt" in text
    assert all(name in text for name in Settings._fields)


def test_an_error_changes_nothing():
    """A `configure` with one wrong value takes none of the others (D6)."""
    with pytest.raises(SettingsError):
        configure(threads=2, grace=-1)
    assert settings() == Settings()


@pytest.mark.parametrize("protocol", ["asgi", "wsgi"])
@pytest.mark.parametrize(
    ("variable", "value"), [("POSTLUDE_THREADS", "no"), ("POSTLUDE_THREAD", "8")]
)
def test_a_wrong_environment_is_an_error_at_start(protocol, variable, value, script):
    """Making the middleware refuses what the environment has wrong, by name (D6)."""
    done = script.run(
        f"""
        from postlude.{protocol} import PostludeMiddleware
        PostludeMiddleware(print)
        """,
        **{variable: value},
    )
    assert f"postlude.exceptions.SettingsError: {variable} sets " in done.stderr


def test_a_wrong_framework_setting_names_its_source():
    """The error for a framework's setting says which one of its settings it is (D6)."""
    with pytest.raises(SettingsError, match=r"^settings\.POSTLUDE sets 'thread'"):
        internal.configure_framework({"THREAD": 8}, "settings.POSTLUDE")
    with pytest.raises(SettingsError, match=r"^settings\.POSTLUDE sets threads to 0"):
        internal.configure_framework({"THREADS": 0}, "settings.POSTLUDE")


def test_the_environment_of_a_process_is_read(script):
    """A process started with settings in its environment has them (D6)."""
    done = script.run(
        """
        import postlude
        postlude.configure(grace=1)
        print(postlude.settings().threads, postlude.settings().grace)
        """,
        POSTLUDE_THREADS="3",
        POSTLUDE_GRACE="2",
    )
    assert (done.stdout, done.stderr) == ("3 1.0\n", "")


def test_the_store_keeps_as_many_records_as_set(unit):
    """The newest records stay, the oldest make room (E1, D6)."""
    from postlude import defer  # noqa: PLC0415 - what the others do without

    configure(failures_kept=2)

    def fail():
        raise LookupError

    def body():
        for name in "abc":
            defer(fail).named(name)

    unit(body)
    assert [record.name for record in failure_store().list()] == ["b", "c"]


def test_a_setting_gone_bad_never_stops_what_runs_in_background(script):
    """What is under way keeps the last good ones; the next `defer` is refused (D6)."""
    done = script.run(
        """
        import os, threading
        import postlude
        from postlude import _settings

        errors = []
        threading.excepthook = lambda hook: errors.append(hook.exc_value)
        started, go, done = threading.Event(), threading.Event(), threading.Event()

        def first():
            started.set()
            assert go.wait(20)

        @postlude.DeferScope()
        def unit():
            postlude.defer(first)
            postlude.defer(done.set)

        threading.Thread(target=unit).start()
        assert started.wait(20)
        _settings.reset()
        os.environ["POSTLUDE_GRACE"] = "-1"
        go.set()
        assert done.wait(20)
        assert _settings.in_force().grace == 8.0
        try:
            postlude.defer(print)
        except postlude.exceptions.SettingsError:
            print("refused", errors)
        os.environ.clear()
        """
    )
    assert (done.stdout, done.stderr) == ("refused []\n", "")


def test_every_setting_is_in_the_readme_and_in_configure():
    """What can be set is told where people look (E2, D6)."""
    readme = Path(__file__).parents[2].joinpath("README.md").read_text()
    told = readme.partition("\n## Settings\n")[2].partition("\n## ")[0]
    for name in Settings._fields:
        assert f"\n| `{name}` |" in told
        assert f"`{name}`" in configure.__doc__
