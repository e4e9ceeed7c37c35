"""The operator's page."""

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from serve_app.access.api_keys import SCOPE_ADMIN
from tests.page.conftest import SIGNED_IN
from tests.page.site import Site

pytestmark = pytest.mark.slow


@pytest.fixture
def operator_page(context: BrowserContext, site: Site, request: pytest.FixtureRequest) -> Page:
    key = site.new_key(f"operators of {request.node.name}", 1, SCOPE_ADMIN)
    context.add_init_script(SIGNED_IN.format(key=key))
    page = context.new_page()
    page.goto("/operator")
    return page


def test_a_tenants_key_does_not_open_it(context: BrowserContext, site: Site) -> None:
    context.add_init_script(SIGNED_IN.format(key=site.key))
    page = context.new_page()
    page.goto("/operator")

    expect(page.get_by_text("has no scope “admin”")).to_be_visible()
    expect(page.get_by_role("link", name="Tenants")).to_have_count(0)


def test_the_load_is_that_of_the_status_route(operator_page: Page) -> None:
    models = operator_page.get_by_role("table", name="Models")
    expect(models.get_by_role("row", name="mini")).to_contain_text("2 running")
    expect(models.get_by_role("row", name="mini")).to_contain_text("1,000")
    expect(models.get_by_role("row", name="acme/big")).to_contain_text("unknown")
    expect(operator_page.get_by_text("ledger answers")).to_be_visible()


def test_a_tenant_is_added_and_gets_credit_limits_and_a_key(
    operator_page: Page, site: Site
) -> None:
    page = operator_page
    page.get_by_role("link", name="Tenants").click()
    page.get_by_role("button", name="Add a tenant").click()
    page.get_by_label("Name").fill("Northwind")
    page.get_by_label("Credit in dollars").fill("3")
    page.get_by_role("button", name="Add", exact=True).click()
    row = page.get_by_role("row", name="Northwind")
    expect(row).to_contain_text("$3.00")

    page.get_by_role("button", name="Credit of Northwind").click()
    page.get_by_label("Dollars to add").fill("1.25")
    page.get_by_label("Reason").fill("invoice 7")
    page.get_by_role("button", name="Add credit").click()
    expect(row).to_contain_text("$4.25")

    page.get_by_role("button", name="Limits of Northwind").click()
    page.get_by_label("Requests per minute").fill("60")
    page.get_by_label("Weight").fill("3")
    page.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("60 requests/min")
    page.get_by_role("button", name="New key for Northwind").click()
    page.get_by_label("Name").fill("first")
    page.get_by_role("button", name="Create", exact=True).click()
    key = page.locator(".secret").inner_text()
    headers = {"authorization": f"Bearer {key}"}
    assert httpx.get(f"{site.address}/v1/key", headers=headers).json()["tenant_name"] == "Northwind"
    page.get_by_role("button", name="I have saved it").click()

    page.get_by_role("link", name="Changes").click()
    expect(page.get_by_role("table", name="Changes")).to_contain_text("credit")
