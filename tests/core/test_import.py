"""What `import postlude` costs, and a pending call."""

import json

import pytest

IMPORT = """
    import sys
    before = set(sys.modules)
    import {module}
    import json
    print(json.dumps(sorted(set(sys.modules) - before - {{"json"}})))
"""
FRAMEWORKS = {
    "asgiref",
    "django",
    "fastapi",
    "flask",
    "pydantic",
    "pytest",
    "starlette",
    "trio",
    "werkzeug",
}


def loaded(script, module):
    """Give the modules that importing *module* adds to a bare interpreter."""
    done = script.run(IMPORT.format(module=module), measured=False)
    assert done.stderr == ""
    return {
        name
        for name in json.loads(done.stdout)
        if not name.startswith("json") and name != "_json"
    }


def test_import_is_small(script):
    """`import postlude` adds at most 70 modules to a bare interpreter (D3)."""
    assert 0 < len(loaded(script, "postlude")) <= 70


@pytest.mark.parametrize("module", ["postlude", "postlude.wsgi"])
def test_import_loads_no_asyncio_and_no_framework(script, module):
    """Neither the package nor its WSGI part needs asyncio or a framework (D3)."""
    roots = {name.partition(".")[0] for name in loaded(script, module)}
    assert roots & (FRAMEWORKS | {"asyncio", "concurrent", "sqlite3"}) == set()


@pytest.mark.parametrize("module", ["postlude.asgi", "postlude.testing"])
def test_the_other_parts_load_no_framework(script, module):
    """The ASGI part and the testing kit load no framework (D3)."""
    roots = {name.partition(".")[0] for name in loaded(script, module)}
    assert roots & FRAMEWORKS == set()


def test_sync_calls_never_load_asyncio(script):
    """A process that only has sync calls runs without asyncio (D3)."""
    done = script.run(
        """
        import sys
        from postlude import DeferScope, defer, defer_all, drain
        from postlude.wsgi import PostludeMiddleware

        def app(environ, start_response):
            defer(print, "deferred")
            start_response("200 OK", [])
            return [b""]

        body = PostludeMiddleware(app)({"SERVER_SOFTWARE": "x"}, lambda *_: None)
        body.close()
        drain()
        with DeferScope():
            defer(print, "in a block").timeout(5)
            defer_all(list, dict)
        print("asyncio" in sys.modules)
        """,
        measured=False,
    )
    assert done.stdout.splitlines() == ["deferred", "in a block", "False"]


MEMORY = """
    import sys
    import tracemalloc
    from contextvars import Context
    from postlude import DeferScope, defer
    COUNT = 10_000

    def nothing():
        pass

    def measure():
        with DeferScope() as scope:
            defer(nothing)
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(COUNT):
                {call}
            print((tracemalloc.get_traced_memory()[0] - before) / COUNT)
            assert scope.pending == COUNT + 1

    tracemalloc.start()
    Context().run(measure)
"""


@pytest.mark.parametrize(
    "call", ["defer(nothing)", "defer(nothing).always().named('n' + str(_))"]
)
def test_a_pending_call_is_small(script, call):
    """A pending call with an empty context takes at most 1 KiB (D6)."""
    done = script.run(MEMORY.format(call=call), measured=False)
    assert done.stderr == ""
    assert 0 < float(done.stdout) <= 1024
