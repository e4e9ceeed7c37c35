"""The web pages: headers, caching, compression, and which files are served."""

import gzip
import re
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from tests.support.app import FakeApp

ROOT = Path(__file__).parents[3]
STATIC = ROOT / "serve_app/http/page/static"
FILES = [str(path.relative_to(STATIC)) for path in STATIC.rglob("*") if path.is_file()]
PAGES = {"/": "index.html", "/operator": "operator.html"}
PATHS = [*PAGES, *(f"/page/{name}" for name in FILES)]


@pytest.mark.parametrize("path", PATHS)
def test_every_file_has_the_strict_headers(app: FakeApp, path: str) -> None:
    answer = app.send("GET", path, key=None)

    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_inline_code_and_its_links_work(app: FakeApp, path: str) -> None:
    text = app.send("GET", path, key=None).text

    assert not re.findall(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son\w+=|https?://", text)
    links = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(links) == 5
    for link in links:
        assert app.send("GET", f"/{link}", key=None).status_code == 200


def test_scripts_import_existing_scripts_of_this_page_only() -> None:
    for path in STATIC.glob("*.js"):
        for imported in re.findall(r'from "([^"]+)"', path.read_text()):
            assert (STATIC / imported).exists(), f"{path.name} imports {imported}"


def test_a_known_file_is_not_sent_again(app: FakeApp) -> None:
    first = app.send("GET", "/page/app.js", key=None)
    again = app.send(
        "GET", "/page/app.js", key=None, headers={"if-none-match": first.headers["etag"]}
    )
    other = app.send("GET", "/page/app.js", key=None, headers={"if-none-match": '"other"'})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert other.status_code == 200


def test_a_file_is_compressed_for_clients_that_can_read_it(app: FakeApp) -> None:
    plain = app.send("GET", "/page/style.css", key=None, headers={"accept-encoding": "identity"})
    small = app.send("GET", "/page/style.css", key=None, headers={"accept-encoding": "br, gzip"})

    assert "content-encoding" not in plain.headers
    assert small.headers["content-encoding"] == "gzip"
    assert small.content == plain.content == (STATIC / "style.css").read_bytes()
    assert int(small.headers["content-length"]) == len(gzip.compress(plain.content))
    assert small.headers["etag"] != plain.headers["etag"]


@pytest.mark.parametrize(
    "name", ["nothing.js", "../files.py", "..%2ffiles.py", "vendor", "vendor/", ""]
)
def test_no_other_file_is_served(app: FakeApp, name: str) -> None:
    assert app.send("GET", f"/page/{name}", key=None).status_code == 404


def test_the_wheel_contains_the_files() -> None:
    included = {each.distribution_path for each in WheelBuilder(str(ROOT)).recurse_included_files()}

    assert {f"serve_app/http/page/static/{name}" for name in FILES} <= included
