"""G2: each part of the testing kit is a fixture, and an option uses them always."""

pytest_plugins = ["pytester"]

# Other plugins, which take most of the time that pytest needs to start.
LEFT_OUT = [
    f"-pno:{name}"
    for name in ("anyio", "cacheprovider", "faker", "hypothesispytest", "xdist")
]
FIXTURES = """
    import pytest
    from postlude import DeferScope, NoScopeError, NoScopeWarning, defer

    def fail():
        raise LookupError("inside the call")

    seen = []

    def test_capture(postlude_capture):
        with DeferScope():
            defer(seen.append, 1)
        postlude_capture.assert_deferred(seen.append, 1)
        assert seen == []

    def test_captured_calls_are_gone():
        assert seen == []

    def test_inline(postlude_inline):
        with DeferScope():
            defer(seen.append, 2)
            assert seen == [2]

    def test_inline_raises(postlude_inline):
        with pytest.raises(LookupError):
            defer(fail)

    def test_an_expected_failure(postlude_failures):
        with DeferScope():
            defer(fail)
        postlude_failures.expect(LookupError)

    def test_a_failure_that_nobody_watches():
        with DeferScope():
            defer(fail)

    def test_strict(postlude_strict):
        with pytest.raises(NoScopeError):
            defer(seen.append, 3)

    def test_not_strict():
        with pytest.warns(NoScopeWarning):
            defer(seen.append, 4)
        assert seen == [2, 4]
"""
UNEXPECTED = """
    from postlude import DeferScope, defer

    def fail():
        raise LookupError("inside the call")

    def test_unexpected(postlude_failures):
        with DeferScope():
            defer(fail).named("mail")
"""
STRICT = """
    import pytest
    from postlude import DeferScope, defer

    def fail():
        raise LookupError("inside the call")

    def test_no_unit():
        defer(list)

    def test_a_failing_call():
        with DeferScope():
            defer(fail).named("mail")

    def test_an_expected_failure(postlude_failures):
        with DeferScope():
            defer(fail)
        postlude_failures.expect(LookupError)

    def test_a_good_one():
        with DeferScope():
            defer(list)
"""


def run(pytester, source):
    """Run the tests of *source* in a process of their own."""
    pytester.makepyfile(source)
    return pytester.runpytest_subprocess(*LEFT_OUT)


def test_there_is_a_fixture_for_each(pytester):
    """Capturing, running inline, watching failures, strictness: a fixture each (G2)."""
    run(pytester, FIXTURES).assert_outcomes(passed=8)


def test_a_failing_call_fails_its_test(pytester):
    """With `postlude_failures` a failing call is an error with name and place (G2)."""
    result = run(pytester, UNEXPECTED)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*LookupError: inside the call",
            "*in <DeferredCall mail failed>, deferred at *",
        ]
    )


def test_an_ini_option_makes_all_tests_strict(pytester):
    """`postlude_strict = true` refuses missing units and unexpected failures (G2)."""
    pytester.makeini("[pytest]\npostlude_strict = true\n")
    result = run(pytester, STRICT)
    result.assert_outcomes(passed=3, errors=1, failed=1)
    result.stdout.fnmatch_lines_random(
        ["ERROR *::test_a_failing_call *", "FAILED *::test_no_unit *", "*NoScopeError*"]
    )


def test_without_the_option_nothing_is_changed(pytester):
    """The installed plugin does nothing to tests that do not ask for it (G2)."""
    result = run(pytester, STRICT)
    result.assert_outcomes(passed=4, warnings=1)


def test_the_plugin_costs_nothing_at_the_start(pytester):
    """Loading the plugin imports nothing of Postlude's core (G2)."""
    result = run(
        pytester,
        """
        import sys

        def test_modules():
            loaded = {name for name in sys.modules if name.startswith("postlude.")}
            assert loaded <= {"postlude.pytest_plugin"} | core()

        def core():
            import postlude
            return {name for name in sys.modules if name.startswith("postlude.")}
        """,
    )
    result.assert_outcomes(passed=1)
