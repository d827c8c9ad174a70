import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from postlude.integrations.starlette import PostludeMiddleware, install

WAYS = {
    "install": (install,),
    "add_middleware": (lambda app: app.add_middleware(PostludeMiddleware),),
}
WAYS["install-twice"] = WAYS["install"] * 2
WAYS["add_middleware-twice"] = WAYS["add_middleware"] * 2
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
def application(installed):
    """Make an application of routes, with Postlude installed in each way."""

    def application(*routes, **options):
        return installed(Starlette(routes=list(routes), **options))

    return application


@pytest.fixture
def client(watched):
    """Make a client of an application; `events` has its last bytes too."""

    def client(app, **options):
        return TestClient(watched(app), **options)

    return client
