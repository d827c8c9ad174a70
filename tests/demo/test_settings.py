import pytest

from shop.settings import BadSettingError, Latencies, Settings


def test_the_defaults_tell_the_story():
    """Without any variable the demo runs the story: 80 ms and 1.12 s on FastAPI."""
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.framework == "fastapi"
    assert (settings.latencies.own, settings.latencies.side_effects) == (80, 1120)
    assert settings.command == "make demo"


def test_each_variable_is_read():
    """Every setting can be told, and the command repeats what differs."""
    settings = Settings.from_environment(
        {"FRAMEWORK": "Flask", "ORDERS": "3", "KEEP": "1", "MAIL_MS": "5", "PORT": "0"}
    )
    assert settings.framework == "flask"
    assert settings.keep
    assert settings.latencies == Latencies(mail=5)
    assert settings.command == "FRAMEWORK=flask ORDERS=3 MAIL_MS=5 make demo"


def test_an_empty_variable_is_none():
    """`ORDERS= make demo` means the default, as in a shell script."""
    assert Settings.from_environment({"ORDERS": "", "FRAMEWORK": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FRAMEWORK", "rails"),
        ("ORDERS", "0"),
        ("ORDERS", "-1"),
        ("ORDERS", "ten"),
        ("ORDERS", "1_0"),
        ("ORDERS", "٣"),
        ("ORDERS", "9" * 30),
        ("KEEP", "yes"),
        ("PORT", "65536"),
        ("MAIL_MS", "1.5"),
        ("CACHE_MS", "10001"),
    ],
)
def test_a_bad_value_is_an_error_in_three_beats(name, value):
    """A value nobody can use is refused with what happened, why, and the fix."""
    with pytest.raises(BadSettingError) as caught:
        Settings.from_environment({name: value})
    happened, cause, fix = str(caught.value).splitlines()
    assert happened.startswith(f"error: {name}={value} ")
    assert cause.startswith("cause: ")
    assert fix.startswith(f"fix:   {name}=")
