"""What the page says when a request fails."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from serve_app.access.api_keys import SCOPE_MANAGE, SCOPE_RERANK
from serve_app.deployments.haproxy import ERROR_RESPONSES
from serve_app.domain.errors import NoReplica, Overloaded, RerankError
from serve_app.domain.job import Job
from serve_app.domain.model import Caller, JobScores, RateLimits
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import KeyId
from serve_app.ports import PortionReport
from tests.page.conftest import SIGNED_IN, TIMEOUT_MS
from tests.page.site import Site, WallClock
from tests.support.app import FakeApp

pytestmark = pytest.mark.slow

REPORTS = 4
"""Requests to `/v1/usage` that the page sends for one selection."""


class ScorerInTrouble:
    """Fails with ``error``."""

    error: RerankError = Overloaded(1)

    async def score(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
    ) -> JobScores:
        raise self.error


@pytest.fixture
def trouble() -> ScorerInTrouble:
    return ScorerInTrouble()


@pytest.fixture
def troubled_site(
    trouble: ScorerInTrouble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    app = FakeApp(scorer=trouble, clock=WallClock())
    with Site.started(tmp_path_factory.mktemp("site"), app) as started:
        yield started


@contextmanager
def opened(browser: Browser, site: Site, key: str) -> Iterator[Page]:
    context = browser.new_context(base_url=site.address)
    context.set_default_timeout(TIMEOUT_MS)
    context.add_init_script(SIGNED_IN.format(key=key))
    page = context.new_page()
    page.goto("/")
    yield page
    context.close()


def rank(page: Page) -> None:
    page.get_by_label("Query").fill("blue sky")
    page.get_by_role("textbox", name="Documents").fill("a blue sky\ngrey")
    page.get_by_role("button", name="Rank documents").click()


def test_a_wrong_key(page: Page) -> None:
    page.get_by_label("API key").fill("rk_wrong")
    page.get_by_role("button", name="Continue").click()

    expect(page.get_by_role("alert")).to_contain_text("This API key is not valid")
    assert page.evaluate("sessionStorage.length") == 0


def test_a_key_that_was_revoked_since(browser: Browser, site: Site) -> None:
    key = site.new_key("leaving", 1, SCOPE_RERANK)
    with opened(browser, site, key) as page:
        expect(page.get_by_role("heading", name="Playground")).to_be_visible()
        site.app.revoke(KeyId(key.split("_")[1]))
        page.reload()
        expect(page.get_by_role("alert")).to_contain_text("This API key no longer works")
        expect(page.get_by_role("alert")).to_contain_text("was revoked")
        expect(page.get_by_label("API key")).to_be_visible()


def test_no_query_and_no_documents(tenant_page: Page) -> None:
    page = tenant_page
    button = page.get_by_role("button", name="Rank documents")
    button.click()
    expect(page.get_by_role("alert")).to_have_text("Enter a query.")
    expect(page.get_by_label("Query")).to_be_focused()
    expect(page.get_by_label("Query")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Query").fill("blue sky")
    expect(page.get_by_role("alert")).to_have_count(0)

    button.click()
    expect(page.get_by_role("alert")).to_have_text("Enter at least one document.")
    expect(page.get_by_role("textbox", name="Documents")).to_be_focused()
    page.get_by_role("button", name="Sample: Help centre").click()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_no_credit(browser: Browser, site: Site) -> None:
    with opened(browser, site, site.new_key("poor", 1, SCOPE_RERANK)) as page:
        rank(page)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("There is not enough credit")
        expect(alert).to_contain_text("Nothing was charged")


def test_a_rate_limit(browser: Browser, site: Site) -> None:
    key = site.new_key("limited", 1_000, SCOPE_RERANK, limits=RateLimits(requests_per_minute_max=1))
    with opened(browser, site, key) as page:
        rank(page)
        expect(page.get_by_role("heading", name="Results")).to_be_visible()
        rank(page)
        expect(page.get_by_role("alert")).to_contain_text("The rate limit is reached")
        expect(page.get_by_role("button", name="Try again in")).to_be_disabled()
        expect(page.get_by_role("alert")).not_to_contain_text("Retry in")
        page.get_by_role("link", name="Usage").click()
        expect(page.get_by_role("region", name="Limits")).to_contain_text("1 of 1")


def test_overload_that_ends(
    browser: Browser, troubled_site: Site, trouble: ScorerInTrouble
) -> None:
    with opened(browser, troubled_site, troubled_site.key) as page:
        page.set_viewport_size({"width": 360, "height": 640})
        rank(page)
        expect(page.get_by_role("alert")).to_contain_text("The service is busy")
        expect(page.get_by_role("alert")).to_be_in_viewport()
        trouble.error = NoReplica("all gone")
        page.get_by_role("button", name="Try again", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("The service cannot answer now")


def test_a_key_with_one_scope_opens_its_views_only(browser: Browser, site: Site) -> None:
    with opened(browser, site, site.new_key("ranker", 1_000, SCOPE_RERANK)) as page:
        expect(page.get_by_role("link", name="Playground")).to_be_visible()
        expect(page.get_by_role("link", name="Keys")).to_have_count(0)
        page.goto(f"{site.address}/#/keys")
        expect(page.get_by_role("heading", name="Keys")).to_be_visible()
        expect(page.get_by_text("Ask for a key with the scope “manage”")).to_be_visible()
    with opened(browser, site, site.new_key("manager", 1_000, SCOPE_MANAGE)) as page:
        expect(page.get_by_role("link", name="Keys")).to_be_visible()
        expect(page.get_by_role("link", name="Playground")).to_have_count(0)


def test_a_service_that_stopped(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    app = FakeApp(clock=WallClock())
    with Site.started(tmp_path_factory.mktemp("site"), app) as site:
        context = browser.new_context(base_url=site.address)
        context.add_init_script(SIGNED_IN.format(key=site.key))
        page = context.new_page()
        page.goto("/")
        expect(page.get_by_label("Query")).to_be_visible()  # The models are loaded.
    rank(page)

    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    expect(page.get_by_label("Query")).to_have_value("blue sky")
    page.get_by_role("link", name="Usage").click()
    expect(page.get_by_role("alert")).to_have_count(1)
    context.close()


@pytest.mark.parametrize("answers", [False, True], ids=["unreachable", "no gateway"])
def test_an_open_page_waits_for_a_service_that_restarts(
    browser: Browser, site: Site, answers: bool
) -> None:
    """HAProxy answers while no gateway is ready; without HAProxy there is no answer."""
    _, _, body = ERROR_RESPONSES[503].partition("\r\n\r\n")
    context = browser.new_context(base_url=site.address)
    context.add_init_script(SIGNED_IN.format(key=site.key))
    page = context.new_page()
    page.clock.install()
    page.goto("/#/usage")
    expect(page.get_by_role("group", name="Totals")).to_be_visible()
    page.route(
        "**/v1/usage**",
        lambda route: (
            route.fulfill(status=503, body=body, content_type="application/json")
            if answers
            else route.abort()
        ),
    )
    ended: list[str] = []
    page.on("requestfinished", lambda request: ended.append(request.url))
    page.on("requestfailed", lambda request: ended.append(request.url))
    page.get_by_label("90 days").check()
    expect(page.get_by_role("alert")).to_contain_text("This page tries again every 5 seconds.")
    page.clock.run_for(5_000)
    # A request that reached the service after `unroute_all` would take a place of the next ones.
    while sum("/v1/usage" in url for url in ended) < 2 * REPORTS:
        page.wait_for_timeout(50)
    expect(page.get_by_role("alert")).to_have_count(1)
    page.unroute_all()
    page.clock.run_for(5_000)

    # The clock also runs by itself, so a request that the last step came too early for follows.
    expect(page.get_by_role("group", name="Totals")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    context.close()


def test_the_page_waits_for_a_service_that_starts(browser: Browser, site: Site) -> None:
    context = browser.new_context(base_url=site.address)
    context.add_init_script(SIGNED_IN.format(key=site.key))
    page = context.new_page()
    page.clock.install()
    page.route("**/v1/key", lambda route: route.abort(), times=1)
    page.goto("/")
    expect(page.get_by_role("alert")).to_contain_text("It may be starting")
    page.clock.run_for(5_000)

    expect(page.get_by_role("heading", name="Playground")).to_be_visible()
    context.close()


def test_an_answer_that_was_lost_is_not_charged_twice(browser: Browser, site: Site) -> None:
    key = site.new_key("unlucky", 1_000, SCOPE_RERANK, SCOPE_MANAGE)
    with opened(browser, site, key) as page:

        def lose(route: Route) -> None:
            route.fetch()
            route.abort()

        page.route("**/v1/rerank", lose, times=1)
        rank(page)
        expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
        page.get_by_label("Query").fill("another query")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_text("2 results for “blue sky”")).to_be_visible()

    headers = {"authorization": f"Bearer {key}"}
    credit = httpx.get(f"{site.address}/v1/credits", headers=headers).json()
    assert credit["available_micro_dollars"] == 1_000 - 2 * 8
