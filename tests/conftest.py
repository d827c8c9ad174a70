"""What holds for every test: settings, event loops, and nothing blocks a loop."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis.database import DirectoryBasedExampleDatabase

from postlude.instrumentation import _discovery

hypothesis.settings.register_profile(
    "postlude",
    # How long an example takes says something about the machine only.
    deadline=None,
    database=DirectoryBasedExampleDatabase(Path("build/hypothesis").absolute()),
    print_blob=True,
    max_examples=150,
)
hypothesis.settings.register_profile(
    "short", hypothesis.settings.get_profile("postlude"), max_examples=30
)
hypothesis.settings.load_profile("postlude")


def pytest_configure() -> None:
    """Take what whoever runs the tests has set out of the way.

    Settings in the environment, and an ignored SIGINT: a shell's background jobs have
    that one, and would hand it on to every server that a test interrupts.
    """
    # Nor does a test want the instruments of libraries that others have loaded.
    _discovery.discovered = True
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in list(os.environ):
        if name.startswith("POSTLUDE_"):
            del os.environ[name]


def pytest_collection_finish() -> None:
    """Spare the collector what is there to stay: the frameworks, and all tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Run each async test on both event loops that the servers use."""
    return request.param


@pytest.fixture(scope="session")
def _detector() -> Iterator[BlockBuster]:
    with blockbuster_ctx(
        "postlude", excluded_modules=["postlude.pytest_plugin"]
    ) as detector:
        for name in ("acquire", "acquire_lock"):
            # Postlude's own locks are held for some bytecodes; whether another thread
            # holds one at that moment is chance.
            detector.functions.pop(f"threading.Lock.{name}").deactivate()
        yield detector


@pytest.fixture(autouse=True)
def blockbuster(_detector: BlockBuster) -> BlockBuster:
    """Fail a test in which Postlude, or what it called, blocks the event loop (D3).

    A test that blocks the loop on purpose requests this fixture and deactivates it.
    """
    _detector.activate()
    return _detector
