"""Signing in, usage and keys."""

import re

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from serve_app.access.api_keys import SCOPE_MANAGE, SCOPE_RERANK
from tests.page.conftest import TIMEOUT_MS
from tests.page.site import CREDIT, Site

pytestmark = pytest.mark.slow


def status(site: Site, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.get(f"{site.address}/v1/models", headers=headers, timeout=30).status_code


def test_the_key_is_kept_in_the_tab_only(page: Page, site: Site) -> None:
    expect(page.get_by_label("API key")).to_be_focused()
    page.get_by_label("API key").fill(f"  {site.key} ")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Playground")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Playground")).to_be_visible()

    assert page.evaluate("Object.values(sessionStorage)") == [site.key]
    assert page.evaluate("localStorage.length") == 0
    assert page.context.cookies() == []
    other = page.context.new_page()
    other.goto("/")
    expect(other.get_by_label("API key")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_views_are_reached_with_the_keyboard(tenant_page: Page) -> None:
    page = tenant_page
    expect(page.get_by_role("heading", name="Playground")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Usage")).to_be_focused()
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name="Usage", level=1)).to_be_focused()
    expect(page).to_have_title("Usage · rerank-serve")


def test_the_page_of_a_model_shows_its_prices_and_leads_to_the_playground(
    tenant_page: Page,
) -> None:
    page = tenant_page
    page.get_by_role("link", name="Models").click()
    page.get_by_role("link", name="acme/big").click()
    expect(page.get_by_role("heading", name="acme/big")).to_be_visible()
    prices = page.get_by_role("region", name="Prices")
    expect(prices.get_by_role("row", name="Priority")).to_contain_text("$0.16")
    page.get_by_role("link", name="Try it").click()

    expect(page.get_by_label("Model")).to_have_value("acme/big")
    expect(page.get_by_label("Query")).to_have_value("how tall is the eiffel tower")


def test_usage_adds_up_what_was_charged(tenant_page: Page, site: Site) -> None:
    page = tenant_page
    headers = {"authorization": f"Bearer {site.key}"}
    body = {"query": "q", "documents": ["a", "b", "c"]}
    httpx.post(f"{site.address}/v1/rerank", headers=headers, json=body).raise_for_status()
    usage = httpx.get(f"{site.address}/v1/usage?group_by=model", headers=headers).json()["data"]
    documents = sum(row["documents"] for row in usage)
    page.get_by_role("link", name="Usage").click()

    expect(page.get_by_role("button", name=f"Documents {documents}")).to_be_visible()
    activity = page.get_by_role("region", name="Activity")
    expect(activity.get_by_role("button", name="Failed 0")).to_be_visible()
    expect(activity).to_contain_text("Refused ones (4xx)")
    page.get_by_role("button", name="Cost").click()
    expect(page.get_by_role("figure")).to_contain_text("Cost per day")
    page.get_by_text("The same as a table").click()
    expect(page.get_by_role("table", name="Usage by day").get_by_role("row")).to_have_count(31)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download CSV").click()
    lines = saved.value.path().read_text().splitlines()
    assert lines[0].startswith("day,model,key,requests")
    assert sum(int(line.split(",")[5]) for line in lines[1:]) == documents


def test_usage_of_a_selection_of_days_models_and_keys(browser: Browser, site: Site) -> None:
    page, key = own_page(browser, site, "Selecting")
    headers = {"authorization": f"Bearer {page.evaluate('Object.values(sessionStorage)[0]')}"}
    for model, documents in (("mini", ["a", "b", "c"]), ("acme/big", ["a", "b"])):
        body = {"model": model, "query": "q", "documents": documents}
        httpx.post(f"{site.address}/v1/rerank", headers=headers, json=body).raise_for_status()
    page.get_by_role("link", name="Usage").click()
    totals = page.get_by_role("group", name="Totals")
    expect(totals.get_by_role("button", name="Documents 5")).to_be_visible()
    expect(
        totals.get_by_role("button", name=re.compile(r"Latency \(median\) \d+ ms"))
    ).to_be_visible()

    page.get_by_label("Model", exact=True).select_option("acme/big")
    expect(totals.get_by_role("button", name="Documents 2")).to_be_visible()
    by_model = page.get_by_role("table", name="Usage by model")
    expect(by_model.get_by_role("row", name="mini")).to_contain_text("3")  # It can be chosen, too.
    expect(page.get_by_role("table", name="Usage by key")).to_contain_text(re.compile(r"2.*ms"))
    today = httpx.get(f"{site.address}/v1/usage", headers=headers).json()["data"][0]["day"]
    page.get_by_label("Day", exact=True).select_option(today)
    page.get_by_label("Key", exact=True).select_option(key)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download CSV").click()
    _, line = saved.value.path().read_text().splitlines()
    assert line.startswith(f"{today},acme/big,{key},1,0,2,")
    assert saved.value.suggested_filename == f"usage-{today}-acme_big-{key}.csv"

    page.get_by_role("button", name="Latency").click()
    expect(page.get_by_role("figure")).to_contain_text(re.compile(r"\d+ ms · 95 %: \d+ ms"))
    page.get_by_role("button", name="Show all").click()
    expect(totals.get_by_role("button", name="Documents 5")).to_be_visible()
    page.locator(".u-over").hover(position={"x": 5, "y": 50})
    expect(page.get_by_role("figure")).to_contain_text(
        "\u2013 · 95 %: \u2013"
    )  # A day without a request.
    page.locator(".u-over").click(position={"x": 5, "y": 50})
    expect(totals.get_by_role("button", name="Documents 0")).to_be_visible()
    page.context.close()


def test_usage_shows_credit_limits_and_statements(tenant_page: Page, site: Site) -> None:
    page = tenant_page
    page.get_by_role("link", name="Usage").click()
    credit = page.get_by_role("region", name="Credit")
    headers = {"authorization": f"Bearer {site.key}"}
    facts = httpx.get(f"{site.address}/v1/credits", headers=headers).json()
    exact = f"{facts['available_micro_dollars'] / 1e6:.6f}".rstrip("0")
    expect(credit.locator(".amount")).to_contain_text(exact)
    expect(credit.get_by_role("row", name="test")).to_contain_text("$5.00")
    expect(page.get_by_role("region", name="Limits")).to_contain_text("No limits.")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download", exact=True).click()

    assert "Acme Search" in saved.value.path().read_text()


def test_a_key_is_created_limited_rotated_and_revoked(tenant_page: Page, site: Site) -> None:
    page = tenant_page
    keys = page.get_by_role("table", name="API keys")
    page.get_by_role("link", name="Keys").click()
    page.get_by_role("button", name="Create a key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("shop")
    dialog.get_by_label("Requests per minute").fill("600")
    dialog.get_by_label("Dollars per month").fill("2.50")
    dialog.get_by_role("button", name="Create").click()
    first = page.locator(".secret").inner_text()
    page.keyboard.press("Escape")  # A secret that is shown once is not closed by accident.
    page.get_by_role("button", name="I have saved it").click()
    expect(page.locator(".secret")).to_have_count(0)
    row = keys.get_by_role("row", name="shop")
    expect(row).to_contain_text("600 requests/min · $2.50/month")
    assert first not in page.content()
    assert status(site, first) == 200

    page.get_by_role("button", name="Edit shop").click()
    page.get_by_role("dialog").get_by_label("Name").fill("web shop")
    page.get_by_role("dialog").get_by_label("Dollars per month").fill("")
    page.get_by_role("button", name="Save").click()
    expect(keys.get_by_role("row", name="web shop")).to_contain_text("600 requests/min")
    expect(keys.get_by_role("row", name="web shop")).not_to_contain_text("month")

    page.get_by_role("button", name="Rotate web shop").click()
    page.get_by_label("The old key works for").select_option("0")
    page.get_by_role("button", name="Rotate", exact=True).click()
    second = page.locator(".secret").inner_text()
    page.get_by_role("button", name="I have saved it").click()
    assert (status(site, first), status(site, second)) == (401, 200)

    page.get_by_role("button", name="Revoke web shop").click()
    page.get_by_role("button", name="Revoke", exact=True).click()
    expect(keys.get_by_role("row", name="web shop")).to_have_count(0)
    assert status(site, second) == 401
    page.get_by_label("Also revoked and expired ones").check()
    expect(keys.get_by_role("row", name="web shop")).to_have_count(2)
    changes = page.get_by_role("table", name="Changes").get_by_role("row", name="key.revoke")
    expect(changes.first).to_contain_text("web shop")


def own_page(browser: Browser, site: Site, tenant: str) -> tuple[Page, str]:
    """Open the keys of a new tenant with one key, and return also the key's public id."""
    key = site.new_key(tenant, CREDIT, SCOPE_RERANK, SCOPE_MANAGE)
    context = browser.new_context(base_url=site.address)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    page.goto("/#/keys")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Continue").click()
    headers = {"authorization": f"Bearer {key}"}
    return page, httpx.get(f"{site.address}/v1/key", headers=headers).json()["id"]


def test_a_rotation_of_the_own_key_keeps_the_tab_signed_in(browser: Browser, site: Site) -> None:
    page, old = own_page(browser, site, "Rotating")
    page.get_by_role("button", name="Rotate").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This tab continues with the new one")
    expect(dialog).to_contain_text("each of them has these limits of its own")
    dialog.get_by_role("button", name="Rotate", exact=True).click()
    expect(dialog).to_contain_text(
        re.compile(r"The old key works until \d+ \w+ \d{4}, \d\d:\d\d\.")
    )
    secret = page.locator(".secret").inner_text()
    page.get_by_role("button", name="I have saved it").click()
    expect(page.get_by_role("row", name="signed in")).to_contain_text(f"replaces rk_{old}_…")
    assert page.evaluate("Object.values(sessionStorage)") == [secret]

    row = page.get_by_role("row", name="old key, ends")
    expect(row).to_contain_text(f"rk_{old}_…")
    expect(row.get_by_role("button", name="Rotate")).to_have_count(0)
    row.get_by_role("button", name="Revoke").click()
    expect(dialog).to_contain_text(re.compile(rf"rk_{old}_…, .* It is the old key, replaced by"))
    expect(dialog).not_to_contain_text("You are signed in")
    dialog.get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
    page.context.close()


def test_revoking_the_last_key_warns_and_signs_out(browser: Browser, site: Site) -> None:
    page, _ = own_page(browser, site, "Revoking")
    page.get_by_role("button", name="Revoke").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("You are signed in with this key")
    expect(dialog).to_contain_text("This is the last active key that may manage keys")
    dialog.get_by_role("button", name="Revoke").click()

    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    page.context.close()


def test_a_limit_that_is_no_number_is_named(tenant_page: Page) -> None:
    page = tenant_page
    page.get_by_role("link", name="Keys").click()
    page.get_by_role("button", name="Create a key").click()
    page.get_by_label("Name").fill("shop")
    page.get_by_label("Dollars per month").fill("2,50")
    page.get_by_role("button", name="Create", exact=True).click()

    expect(page.get_by_role("alert")).to_contain_text("Dollars per month: enter an amount")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_secret_can_be_copied_on_plain_http(tenant_page: Page) -> None:
    page = tenant_page
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("link", name="Keys").click()
    page.get_by_role("button", name="Create a key").click()
    page.get_by_label("Name").fill("copied")
    page.get_by_role("button", name="Create", exact=True).click()
    secret = page.locator(".secret").inner_text()
    page.get_by_role("button", name="Copy the key").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.get_by_role("button", name="I have saved it").click()
    page.get_by_role("link", name="Playground").click()
    page.get_by_label("Query").press("Control+v")

    expect(page.get_by_label("Query")).to_have_value(secret)


def test_an_address_that_names_nothing_is_no_error(tenant_page: Page, site: Site) -> None:
    tenant_page.goto(f"{site.address}/#/nothing/%")
    expect(tenant_page.get_by_role("heading", name="Playground")).to_be_visible()
    tenant_page.goto(f"{site.address}/#/models/nothing")
    expect(tenant_page.get_by_role("alert")).to_contain_text("There is no model 'nothing'")
