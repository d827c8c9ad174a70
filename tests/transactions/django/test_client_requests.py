"""AC9 and G1 with Django: requests of its test clients."""

from contextlib import suppress

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.http import HttpResponse
from django.test import TestCase, TransactionTestCase, override_settings
from django.urls import path
from shops import NoError, dropped

from postlude import DeferScope, defer

MIDDLEWARE = ["postlude.integrations.django.PostludeMiddleware"]


class Pages:
    """A URL configuration of one view."""

    def __init__(self, view):
        """Take the view."""
        self.urlpatterns = [path("", view)]


@pytest.fixture
def site(shop):
    """Have the client of a test request a view, with `ATOMIC_REQUESTS`."""

    def site(view):
        settings = {"ROOT_URLCONF": Pages(view), "MIDDLEWARE": MIDDLEWARE}
        return override_settings(**settings)

    shop.connection.settings_dict["ATOMIC_REQUESTS"] = True
    return site


kinds = pytest.mark.parametrize("kind", [TestCase, TransactionTestCase])


@kinds
@pytest.mark.parametrize("around", [False, True])
def test_a_request_has_run_its_calls(around, kind, run_in, site, shop, ran):
    """When the client returns, in a block of the test's own as well (G1, AC9)."""

    def view(_request):
        shop.write("a")
        defer(lambda: ran.append(shop.titles()))
        with suppress(NoError), shop.atomic():
            defer(ran.append, "dropped")
            raise NoError
        return HttpResponse()

    def test(case):
        with site(view):
            if around:
                with shop.atomic():
                    case.client.get("/")
                    assert ran == [["a"]]
            else:
                case.client.get("/")

    run_in(kind, test, shop)
    assert ran == [["a"]]


@kinds
def test_a_block_in_a_request(kind, run_in, site, shop, ran, drained):
    """It waits for what is open in its request, not for what is around that (A8)."""
    calls = []

    def view(_request):
        with DeferScope():
            calls.append(defer(ran.append, 1))
        assert ran == []
        return HttpResponse()

    def test(case):
        with site(view), shop.atomic():
            case.client.get("/")
            drained()
            assert ran == [1]

    run_in(kind, test, shop)
    assert calls[0].outcome.committed is True


def test_a_request_inside_a_block_with_calls(in_case, site, shop, ran):
    """The block's calls wait for the block, the request's for the request (G1)."""

    def view(_request):
        defer(ran.append, "request")
        return HttpResponse()

    def test(case):
        with DeferScope(), site(view), shop.atomic():
            defer(ran.append, "block")
            case.client.get("/")
            assert ran == ["request"]

    in_case(test)
    assert ran == ["request", "block"]


@kinds
def test_a_request_that_fails(kind, run_in, site, shop, ran):
    """Its transaction, and so its calls, are rolled back (C2, G1)."""
    calls = []

    def view(_request):
        calls.append(defer(ran.append, 1))
        calls.append(defer(ran.append, "always").always())
        raise NoError

    def test(case):
        with site(view), pytest.raises(NoError):
            case.client.get("/")

    run_in(kind, test, shop)
    assert ran == ["always"]
    assert dropped(calls[0], shop)
    assert calls[1].outcome.committed is False


def test_a_call_of_a_request_has_blocks_of_its_own(in_case, site, shop, ran):
    """In the thread of the test, in its transaction (A7, G1)."""

    def work():
        with suppress(NoError), shop.atomic():
            defer(ran.append, "dropped")
            raise NoError
        with shop.atomic():
            defer(ran.append, "kept")

    def view(_request):
        defer(work)
        return HttpResponse()

    def test(case):
        with site(view):
            case.client.get("/")
        assert ran == ["kept"]

    in_case(test)


@kinds
@pytest.mark.parametrize("around", [False, True])
def test_an_asynchronous_request(around, kind, run_in, shop, ran):
    """With blocks in threads, which is the only way (G1)."""

    @sync_to_async
    def order(number, fails):
        with shop.atomic():
            defer(ran.append, number)
            if fails:
                raise NoError

    async def view(_request):
        await order(1, False)
        with suppress(NoError):
            await order(2, True)
        return HttpResponse()

    def test(case):
        @async_to_sync
        async def get():
            await case.async_client.get("/")

        with override_settings(ROOT_URLCONF=Pages(view), MIDDLEWARE=MIDDLEWARE):
            if around:
                with shop.atomic():
                    get()
                    assert ran == [1]
            else:
                get()

    run_in(kind, test, shop)
    assert ran == [1]
