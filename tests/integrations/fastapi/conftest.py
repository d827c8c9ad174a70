import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from postlude.integrations.fastapi import PostludeMiddleware, install

WAYS = {
    "install": (install,),
    "add_middleware": (lambda app: app.add_middleware(PostludeMiddleware),),
}
WAYS["both"] = WAYS["add_middleware"] + WAYS["install"]


@pytest.fixture(params=WAYS)
def installed(request):
    """Install Postlude on an application, in each way there is."""

    def installed(app):
        for install_one in WAYS[request.param]:
            install_one(app)
        return app

    return installed


@pytest.fixture
def app(installed):
    """An application with Postlude installed, in each way there is."""
    return installed(FastAPI())


@pytest.fixture
def client(watched):
    """Make a client of an application; `events` has its last bytes too."""

    def client(app, **options):
        return TestClient(watched(app), **options)

    return client
