"""A path that a client joins from a base URL and a route is answered without a redirect."""

import pytest

from serve_app.http.openapi.scoring import SCORING
from serve_app.http.paths import route_path
from tests.support.app import FakeApp

PATHS = [path for operation in SCORING for path in operation.paths]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/rerank", "/v1/rerank"),
        ("/v1/rerank/", "/v1/rerank"),
        ("/v1//rerank", "/v1/rerank"),
        ("//v1/rerank//", "/v1/rerank"),
        ("/v1/v2/rerank", "/v2/rerank"),
        ("/v2//v1/rerank", "/v1/rerank"),
        ("/v2/v1/models", "/v1/models"),
        ("/v1/v1/v1/rerank", "/v1/v1/rerank"),
        ("/v1/models/acme/v1/v1/big", "/v1/models/acme/v1/v1/big"),
        ("/voyage/v1/rerank/", "/voyage/v1/rerank"),
        ("/v1/retrieval/embedded/reranking", "/v1/ranking"),
        ("/v1/retrieval/acme/big/reranking/", "/v1/ranking"),
        ("/v1/retrieval/reranking", "/v1/retrieval/reranking"),
        ("/docs/", "/docs/"),
        ("/", "/"),
        ("//", "/"),
        ("", "/"),
    ],
)
def test_a_joined_path_is_that_of_its_route(path: str, route: str) -> None:
    assert route_path(path) == route


@pytest.mark.parametrize("path", PATHS)
def test_slashes_change_no_answer(app: FakeApp, path: str) -> None:
    plain = app.send("POST", path, body={})

    for joined in (f"{path}/", f"/{path}", path.replace("/", "//")):
        answer = app.send("POST", f"http://test{joined}", body={})
        assert answer.status_code == plain.status_code == 400
        assert {**answer.json(), "id": ""} == {**plain.json(), "id": ""}


@pytest.mark.parametrize("path", ["/v1/models/", "/v1/v1/models", "/v2/v1/models", "//v1/models"])
def test_the_list_of_models_has_joined_paths_too(app: FakeApp, path: str) -> None:
    assert app.send("GET", f"http://test{path}").json() == app.send("GET", "/v1/models").json()


@pytest.mark.parametrize("path", ["/v1/v2/v1/rerank", "/v3/v1/rerank", "/v1v1/rerank"])
def test_any_other_prefix_is_not_found(app: FakeApp, path: str) -> None:
    assert app.send("POST", path, body={}).status_code == 404
