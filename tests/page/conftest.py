"""A browser, and a service for it that is real but for Ray and the model."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.page.site import Site, Violations, WallClock
from tests.support.app import FakeApp

TIMEOUT_MS = 30_000
"""For every expectation and action. Playwright's 5 s for an expectation are short where tests with
models run at the same time."""

SIGNED_IN = "location.origin === 'null' || sessionStorage.setItem('rerank-serve.key', {key!r})"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. It ends with the tests of a file, because `asyncio.run` fails until then."""
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            timeout=4 * TIMEOUT_MS,
            args=["--no-sandbox"],  # Tests may run as root, for whom Chromium has no sandbox.
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    app = FakeApp(clock=WallClock())
    with Site.started(tmp_path_factory.mktemp("site"), app) as started:
        yield started


@pytest.fixture
def context(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    """A browser without memory. At the end, no page of it has violated the policy."""
    made = browser.new_context(base_url=site.address)
    made.grant_permissions(["clipboard-read", "clipboard-write"])
    made.set_default_timeout(TIMEOUT_MS)
    violations = Violations(made, site.address)
    yield made
    made.close()
    assert violations.found == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """The page as a stranger sees it."""
    opened = context.new_page()
    opened.goto("/")
    return opened


@pytest.fixture
def tenant_page(context: BrowserContext, site: Site) -> Page:
    """The page with a key for ranking and managing."""
    context.add_init_script(SIGNED_IN.format(key=site.key))
    opened = context.new_page()
    opened.goto("/")
    return opened
