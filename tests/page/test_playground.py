"""The playground ranks documents like the API, and shows what the API answers."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, Request, expect

from tests.page.site import Site, WallClock
from tests.support.embedded_app import embedded_app

pytestmark = pytest.mark.slow

QUERY = "how tall is the eiffel tower"
DOCUMENTS = [
    "The Louvre is a museum in Paris.",
    "Paris is the capital of France.",
    "The Eiffel Tower is 330 metres tall.",
    'It\'s a "quoted" text with an emoji \U0001f5fc and a back\\slash.',
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The service with the embedded model in this process."""
    app = embedded_app(clock=WallClock())
    with Site.started(tmp_path_factory.mktemp("site"), app) as started:
        yield started


def rank(page: Page) -> None:
    page.get_by_role("button", name="Rank documents").click()
    expect(page.get_by_role("heading", name="Results")).to_be_visible()


def body_of(request: Request) -> dict[str, object]:
    body: dict[str, object] = json.loads(request.post_data or "")
    return body


def shown_order(page: Page) -> list[int]:
    """Return the places in the request of the shown documents, best first."""
    marks = page.locator(".results .track + .badge").all_inner_texts()
    return [int(re.findall(r"\d+", mark)[-1]) - 1 for mark in marks]


def test_lines_are_ranked_and_the_figures_are_those_of_the_answer(
    tenant_page: Page, site: Site
) -> None:
    page = tenant_page
    expect(page.get_by_text("Languages: English")).to_be_visible()
    page.get_by_label("Query").fill(QUERY)
    expect(page.get_by_text("Price: $0.008 per 1,000 documents", exact=True)).to_be_visible()
    page.get_by_role("textbox", name="Documents").fill("\n".join([*DOCUMENTS, "", "  "]))
    expect(page.get_by_text("per 1,000 documents ($0.000032 for 4 documents)")).to_be_visible()
    expect(page.get_by_text("4 documents", exact=True)).to_be_visible()
    with page.expect_response("**/v1/rerank") as sent:
        rank(page)
    answer = sent.value.json()

    assert shown_order(page) == [result["index"] for result in answer["results"]]
    assert shown_order(page)[0] == 2
    figures = page.get_by_role("region", name="Time and cost")
    expect(figures).to_contain_text(f"${answer['meta']['charge_micro_dollars'] / 1e6:.6f}")
    expect(figures).to_contain_text(str(answer["usage"]["total_tokens"]))
    expect(figures).to_contain_text(answer["id"])
    expect(figures).to_contain_text("Waiting in the queue: 0.0 ms")
    headers = {"authorization": f"Bearer {site.key}"}
    credit = httpx.get(f"{site.address}/v1/credits", headers=headers).json()
    left = f"{credit['available_micro_dollars'] / 1e6:.6f}".rstrip("0")
    expect(figures).to_contain_text(f"Credit left${left}")
    expect(page.get_by_text("It is not a probability")).to_be_visible()

    page.get_by_label("Results (top_n)").fill("3")
    expect(page.get_by_text("The inputs have changed; rank again.")).to_be_visible()
    page.get_by_label("Results (top_n)").fill("")
    expect(page.get_by_text("The inputs have changed; rank again.")).to_have_count(0)


def test_top_n_and_the_tier_are_sent(tenant_page: Page) -> None:
    page = tenant_page
    page.get_by_role("button", name="Sample: Encyclopedia").click()
    page.get_by_label("Results (top_n)").fill("3")
    page.get_by_label("Service tier").select_option("flex")
    expect(page.get_by_text("After other requests, at 0.5 times the price")).to_be_visible()
    with page.expect_request("**/v1/rerank") as sent:
        rank(page)

    assert body_of(sent.value)["top_n"] == 3
    assert body_of(sent.value)["service_tier"] == "flex"
    assert len(shown_order(page)) == 3
    expect(page.get_by_role("region", name="Time and cost")).to_contain_text("flextop_n3")
    expect(page.get_by_text("5 more documents ranked, left out by top_n.")).to_be_visible()


def test_a_document_that_was_cut_is_marked(tenant_page: Page) -> None:
    page = tenant_page
    page.get_by_label("Query").fill(QUERY)
    page.get_by_role("textbox", name="Documents").fill(
        f"short\n{'a long text about towers ' * 300}"
    )
    rank(page)

    expect(page.get_by_text("cut to fit the model")).to_have_count(1)
    page.get_by_role("button", name="Show all of it").click()
    expect(page.get_by_role("button", name="Show less")).to_be_visible()


def as_csv(documents: list[str]) -> str:
    rows = (f'{n},"{text.replace(chr(34), 2 * chr(34))}"' for n, text in enumerate(documents))
    return "\r\n".join(["number,passage", *rows])


@pytest.mark.parametrize(
    ("name", "content", "documents"),
    [
        ("lines.txt", "\n".join(DOCUMENTS), DOCUMENTS),
        ("table.csv", as_csv([*DOCUMENTS, "two\nlines"]), [*DOCUMENTS, "two\nlines"]),
        (
            "objects.jsonl",
            "\n".join(json.dumps({"id": 7, "body": text}) for text in DOCUMENTS),
            DOCUMENTS,
        ),
    ],
)
def test_documents_come_from_a_file(
    tenant_page: Page, tmp_path: Path, name: str, content: str, documents: list[object]
) -> None:
    page = tenant_page
    file = tmp_path / name
    file.write_bytes(content.encode())
    page.get_by_label("Query").fill(QUERY)
    page.get_by_label("File with documents").set_input_files(file)
    expect(page.get_by_text(name)).to_be_visible()
    with page.expect_request("**/v1/rerank") as sent:
        rank(page)

    assert body_of(sent.value)["documents"] == documents


def test_another_column_of_a_table_can_be_chosen(tenant_page: Page, tmp_path: Path) -> None:
    page = tenant_page
    file = tmp_path / "table.csv"
    file.write_text("title;text\nfirst;one\nsecond;two\n")
    page.get_by_label("Query").fill(QUERY)
    page.get_by_label("File with documents").set_input_files(file)
    page.get_by_label("Column with the documents").select_option("title")
    with page.expect_request("**/v1/rerank") as sent:
        rank(page)

    assert body_of(sent.value)["documents"] == ["first", "second"]


def test_another_field_of_objects_can_be_chosen(tenant_page: Page, tmp_path: Path) -> None:
    page = tenant_page
    file = tmp_path / "objects.jsonl"
    file.write_text('{"text": "one", "title": "first"}\n"plain"\n{"text": "two", "tags": []}\n')
    page.get_by_label("Query").fill(QUERY)
    page.get_by_label("File with documents").set_input_files(file)
    page.get_by_label("Field with the documents").select_option("title")
    expect(page.get_by_text("1 row without this field left out")).to_be_visible()
    with page.expect_request("**/v1/rerank") as sent:
        rank(page)

    assert body_of(sent.value)["documents"] == ["first", "plain"]


def test_a_file_that_cannot_be_read_is_explained(tenant_page: Page, tmp_path: Path) -> None:
    page = tenant_page
    file = tmp_path / "broken.jsonl"
    file.write_text('"fine"\n{broken\n')
    page.get_by_label("File with documents").set_input_files(file)

    expect(page.get_by_role("alert")).to_have_text("Line 2 is not JSON.")


def run(language: str, program: str, site: Site) -> list[int]:
    """Run a copied program, and return the order that it prints."""
    commands = {
        "curl": ["bash", "-euo", "pipefail"],
        "Python · cohere": [sys.executable, "-"],
        "Python · httpx": [sys.executable, "-"],
        "JavaScript": ["node", "--input-type=module", "-"],
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
    done = subprocess.run(
        commands[language],
        input=program,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={"PATH": path, "RERANK_API_KEY": site.key},
    )
    assert done.returncode == 0, done.stderr
    if language == "curl":
        return [result["index"] for result in json.loads(done.stdout)["results"]]
    return [int(line.split()[0]) for line in done.stdout.splitlines()]


def test_the_copied_programs_give_the_shown_order(tenant_page: Page, site: Site) -> None:
    page = tenant_page
    page.get_by_label("Query").fill(QUERY)
    page.get_by_role("textbox", name="Documents").fill("\n".join(DOCUMENTS))
    page.get_by_label("Results (top_n)").fill("3")
    page.get_by_label("Service tier").select_option("flex")
    rank(page)
    orders = {}
    for language in ("curl", "Python · cohere", "Python · httpx", "JavaScript"):
        page.get_by_role("radio", name=language).check(force=True)
        page.get_by_role("button", name=re.compile("Copy the code|Copied")).click()
        shown = page.get_by_label("Program").inner_text()
        is_copied = "async (text) => (await navigator.clipboard.readText()).trim() === text"
        page.wait_for_function(is_copied, arg=shown.strip())
        assert site.key not in shown
        orders[language] = run(language, shown, site)

    assert all(order == shown_order(page) for order in orders.values()), orders
