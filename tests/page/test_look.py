"""The page is accessible and fits the screen, in both colour schemes and at all widths."""

from typing import Literal

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from serve_app.access.api_keys import SCOPE_ADMIN
from tests.page.conftest import SIGNED_IN
from tests.page.site import Site, Violations

pytestmark = pytest.mark.slow

Scheme = Literal["light", "dark"]

FIRST_LOAD_BYTES_MAX = 250_000
WIDTHS = (360, 800, 1_440)
VIEWS = {
    "playground": "Playground",
    "models": "Models",
    "models/mini": "mini",
    "usage": "Usage",
    "keys": "Keys",
}
"""The title of each view."""


def ready(page: Page, view: str) -> None:
    """Wait for a view with data, and open what is hidden in it."""
    # Until the browser has followed the address, the page shows the data of the previous view.
    expect(page.get_by_role("heading", level=1)).to_have_text(VIEWS[view])
    expect(page.get_by_text("Loading …")).to_have_count(0)
    if view == "playground":
        page.get_by_role("button", name="Sample: Help centre").click()
        page.get_by_role("button", name="Rank documents").click()
        expect(page.get_by_role("heading", name="Results")).to_be_visible()


def lengths(elements: Locator) -> set[float]:
    widths: list[float] = elements.evaluate_all("all => all.map((each) => each.clientWidth)")
    return set(widths)


def check(page: Page, where: str) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, f"{where}\n{found.generate_report()}"
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0, f"{where}: {overflow} px too wide"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible_and_fits(browser: Browser, site: Site, scheme: Scheme) -> None:
    context = browser.new_context(
        base_url=site.address, color_scheme=scheme, reduced_motion="reduce"
    )
    context.add_init_script(SIGNED_IN.format(key=site.key))
    violations = Violations(context, site.address)
    page = context.new_page()
    for view in VIEWS:
        page.goto(f"/#/{view}")
        ready(page, view)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            check(page, f"{view} at {width} px, {scheme}")
            if view == "keys":
                box = page.get_by_role("group", name="API keys")
                hidden = box.evaluate("(each) => each.scrollWidth - each.clientWidth")
                assert hidden <= 0, f"{hidden} px of the keys are hidden"
            if view == "playground":
                assert len(lengths(page.locator(".results .track"))) == 1
        if view == "playground":
            page.get_by_label("Query").fill("changed")
            expect(page.get_by_text("The inputs have changed")).to_be_visible()
            check(page, f"an old answer, {scheme}")
    page.get_by_role("button", name="Create a key").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    check(page, f"dialog, {scheme}")
    context.close()

    assert violations.found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_without_a_key_and_for_operators_are_accessible(
    browser: Browser, site: Site, scheme: Scheme
) -> None:
    context = browser.new_context(
        base_url=site.address, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto("/")
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_be_visible()
    check(page, "signing in")
    page.goto("/operator")
    expect(page.get_by_role("heading", name="Operator")).to_be_visible()
    check(page, "signing in as an operator")
    key = site.new_key(f"operators {scheme}", 1, SCOPE_ADMIN)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Continue").click()
    for view in ("Load", "Tenants", "Changes"):
        page.get_by_role("link", name=view).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(view)
        expect(page.get_by_text("Loading …")).to_have_count(0)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            check(page, f"{view} at {width} px, {scheme}")
    context.close()


def test_the_first_load_is_small(page: Page, site: Site) -> None:
    names = page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
    files = [url for url in names if "/page/" in url]
    sizes = {}
    for url in [f"{site.address}/", *files]:
        with httpx.stream("GET", url, headers={"accept-encoding": "gzip"}) as answer:
            sizes[url] = sum(len(part) for part in answer.iter_raw())

    assert len(files) > 10
    assert sum(sizes.values()) <= FIRST_LOAD_BYTES_MAX, sizes
