"""The OpenAPI document matches the API, and the docs page loads nothing from outside."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import openapi_spec_validator
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from serve_app import __version__
from serve_app.http.headers import RATE_LIMIT_HEADERS
from serve_app.http.openapi.document import document
from serve_app.http.openapi.scoring import SCORING, TEXT_LISTS
from serve_app.http.paths import route_path
from serve_app.http.problems import PROBLEMS
from tests.support.app import LIMITS, FakeApp
from tests.support.goldens import Case, cases

UNLISTED = {
    *("/", "/operator", "/page/{name:path}"),
    *("/docs", "/docs/{name}", "/openapi.json"),
}
SCORING_PATHS = {path for scoring in SCORING for path in scoring.paths}
ERRORS = {"infinity": "InfinityError", "voyage": "VoyageError"}


@pytest.fixture(scope="module")
def whole() -> Any:
    return document(LIMITS, __version__)


@pytest.fixture
def page(app: FakeApp) -> Any:
    return app.send("GET", "/openapi.json", key=None).json()


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def resolved(page: Any, reference: str) -> Any:
    found = page
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def check(page: Any, schema: str, value: object) -> None:
    document = {"$ref": f"#/components/schemas/{schema}", "components": page["components"]}
    jsonschema.validate(value, document, jsonschema.Draft202012Validator)


def test_the_document_is_valid_openapi_3_1(page: Any) -> None:
    openapi_spec_validator.validate(page, cls=OpenAPIV31SpecValidator)


def test_the_document_has_the_version_that_the_bundled_page_supports(page: Any) -> None:
    assert page["openapi"] == "3.1.0"
    assert set(page["info"]) == {"title", "version", "description", "license"}
    assert page["info"]["version"] == __version__


def test_every_reference_resolves(page: Any) -> None:
    references = [node["$ref"] for node in nodes(page) if isinstance(node.get("$ref"), str)]

    assert references
    assert all(resolved(page, reference) for reference in references)


def answers(page: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the path, the status and the headers of every response."""
    for path, item in page["paths"].items():
        for operation in item.values():
            for status, answer in operation["responses"].items():
                found = resolved(page, answer["$ref"]) if "$ref" in answer else answer
                headers = {
                    name: resolved(page, each["$ref"]) if "$ref" in each else each
                    for name, each in found["headers"].items()
                }
                yield path, status, headers


def test_every_response_has_its_headers(page: Any) -> None:
    for path, status, headers in answers(page):
        required = {name for name, header in headers.items() if header.get("required")}
        scoring = path in SCORING_PATHS

        assert required == {
            "x-request-id",
            *(["retry-after"] if status in ("429", "503") else []),
            *(["www-authenticate"] if status == "401" else []),
            *(["server-timing"] if scoring and status == "200" else []),
        }
        assert "access-control-allow-origin" in headers
        if scoring and status not in ("401", "403", "404", "408", "415", "422"):
            assert set(RATE_LIMIT_HEADERS) < set(headers)


def test_retry_after_is_at_most_a_minute(page: Any) -> None:
    assert page["components"]["headers"]["retry-after"]["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 60,
    }


def test_parameters_have_types_and_bounds(page: Any) -> None:
    def schema(path: str, method: str, name: str) -> Any:
        found = page["paths"][path][method]["parameters"]
        return next(each for each in found if each["name"] == name)["schema"]

    limit = {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100}
    assert schema("/admin/v1/keys", "get", "limit") == limit
    assert schema("/v1/usage", "get", "limit") == {
        "type": "integer",
        "minimum": 1,
        "maximum": 10_000,
    }
    assert schema("/v1/rerank", "post", "x-request-timeout-s") == {
        "type": "number",
        "minimum": 0.001,
        "maximum": LIMITS.request_timeout_s_max,
        "default": LIMITS.request_timeout_s,
    }


def test_what_is_required_is_marked(page: Any) -> None:
    paths = page["paths"]
    bodies = {
        (method, path): operation["requestBody"].get("required", False)
        for path, item in paths.items()
        for method, operation in item.items()
        if "requestBody" in operation
    }
    tenant = next(
        each for each in paths["/admin/v1/credit"]["get"]["parameters"] if each["name"] == "tenant"
    )

    optional = {
        ("patch", "/admin/v1/tenants/{id}"),
        ("post", "/v1/keys"),
        *(("patch", f"{root}/v1/keys/{{id}}") for root in ("", "/admin")),
        *(("post", f"{root}/v1/keys/{{id}}/rotate") for root in ("", "/admin")),
    }
    assert {operation for operation, required in bodies.items() if not required} == optional
    assert tenant["required"]


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ({}, "http://test"),
        (
            {"host": "rerank.example:8443", "x-forwarded-proto": "https"},
            "https://rerank.example:8443",
        ),
        ({"host": "[::1]:8000", "x-forwarded-proto": "gopher"}, "http://[::1]:8000"),
        ({"host": 'a"b'}, "/"),
        ({"host": "a/b"}, "/"),
    ],
)
def test_the_first_server_is_the_one_that_was_asked(
    app: FakeApp, headers: dict[str, str], url: str
) -> None:
    served = app.send("GET", "/openapi.json", key=None, headers=headers).json()

    assert served["servers"][0] == {"url": url}


def test_a_refund_has_the_idempotency_header(page: Any) -> None:
    refund = page["paths"]["/admin/v1/credit/refunds"]["post"]

    assert "409" in refund["responses"]
    assert [each["name"] for each in refund["parameters"]] == ["Idempotency-Key"]


def test_every_schema_is_valid(page: Any) -> None:
    for schema in page["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert not [node for node in nodes(page["components"]) if "nullable" in node]


def test_every_route_is_listed_with_its_methods(app: FakeApp, page: Any) -> None:
    served = {
        (route.path.replace(":path", ""), method.lower())
        for route in app.asgi.routes
        if isinstance(route, Route) and route.path not in UNLISTED
        for method in route.methods or ()
        if method != "HEAD"
    }
    listed = {(path, method) for path, item in page["paths"].items() for method in item}

    assert listed == served


def test_operation_ids_are_unique(page: Any) -> None:
    names = [node["operationId"] for node in nodes(page) if "operationId" in node]

    assert len(names) == len(set(names)) == sum(len(item) for item in page["paths"].values())


def test_every_status_of_the_table_is_listed(page: Any) -> None:
    seen = {str(row.status) for row in PROBLEMS.values()} - {"405", "499"}

    for path in ("/v1/rerank", "/v1/score"):
        assert set(page["paths"][path]["post"]["responses"]) == seen | {"200"}


def test_idempotency_keys_are_documented_for_all_scoring_routes(page: Any) -> None:
    for scoring in SCORING:
        for path in scoring.paths:
            operation = page["paths"][path]["post"]
            names = {parameter["name"] for parameter in operation["parameters"]}
            assert "Idempotency-Key" in names
            assert "idempotent-replayed" in operation["responses"]["200"]["headers"]
            conflict = operation["responses"]["409"]
            assert "retry-after" in conflict["headers"]
            assert "`idempotency_key_in_use` or `idempotency_key_reused`" in conflict["description"]
    assert page["components"]["responses"]["409"]["description"].startswith("`conflict`. ")


def test_health_and_readiness_need_no_key(page: Any) -> None:
    assert page["paths"]["/health"]["get"]["security"] == []
    assert page["paths"]["/ready"]["get"]["security"] == []
    assert page["paths"]["/v1/rerank"]["post"]["security"] == [{"bearer": []}, {"apiKey": []}]


def test_the_limits_are_documented(page: Any) -> None:
    for kind, texts in TEXT_LISTS.items():
        fields = page["components"]["schemas"][kind.__name__]["properties"]
        query = fields["query"].get("properties", {}).get("text", fields["query"])
        assert fields[texts]["maxItems"] == LIMITS.documents_per_request_max
        assert query["maxLength"] == LIMITS.query_characters_max
    pairs = page["components"]["schemas"]["ScoreRequest"]["properties"]["pairs"]
    assert pairs["maxItems"] == LIMITS.documents_per_request_max
    _, texts = page["components"]["schemas"]["ScoreTexts"]["properties"]["text_2"]["anyOf"]
    assert texts["maxItems"] == LIMITS.documents_per_request_max


@pytest.mark.parametrize("path", [path for scoring in SCORING for path in scoring.paths])
def test_the_examples_are_valid(whole: Any, path: str) -> None:
    operation = whole["paths"][path]["post"]
    for described in (operation["requestBody"], operation["responses"]["200"]):
        content = described["content"]["application/json"]
        schema = content["schema"] | {"components": whole["components"]}
        jsonschema.validate(content["example"], schema, jsonschema.Draft202012Validator)


def schema_of(page: Any, case: Case) -> Any:
    """Return the schema that the golden answer must match, if any.

    It is that of the route and status, or that of the path's errors.
    """
    path = route_path(case["request"].get("path", "/v1/rerank"))
    method = case["request"].get("method", "POST")
    responses = page["paths"].get(path, {}).get(method.lower(), {}).get("responses", {})
    if response := responses.get(str(case["answer"]["status"])):
        response = resolved(page, response["$ref"]) if "$ref" in response else response
        return response["content"]["application/json"]["schema"]
    error = ERRORS.get(path.split("/")[1], "ErrorBody")
    failed = case["answer"]["status"] >= 400
    return {"$ref": f"#/components/schemas/{error}"} if failed else None


@pytest.mark.parametrize("case", cases().values(), ids=list(cases()))
def test_golden_responses_match_the_schemas(whole: Any, case: Case) -> None:
    if schema := schema_of(whole, case):
        schema = schema | {"components": whole["components"]}
        jsonschema.validate(case["answer"]["body"], schema, jsonschema.Draft202012Validator)


def test_the_schema_refuses_the_bodies_that_the_parser_refuses(page: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(page, "RerankRequest", {"query": "q", "documents": [3]})
    with pytest.raises(jsonschema.ValidationError):
        check(page, "RerankRequest", {"query": "q", "documents": ["a"], "top_n": -1})
    for pair in (["q"], ["q", "a", "b"], ["q", 3]):
        with pytest.raises(jsonschema.ValidationError):
            check(page, "ScoreRequest", {"pairs": [pair]})
    check(page, "ScoreTexts", {"text_1": "q", "text_2": ["a"]})
    with pytest.raises(jsonschema.ValidationError):
        check(page, "NvidiaRequest", {"query": {"text": ""}, "passages": [{"text": "a"}]})
    for passages in ([], [3], 3):
        with pytest.raises(jsonschema.ValidationError):
            check(page, "ScoreTexts", {"text_1": "q", "text_2": passages})


def test_the_docs_page_refers_to_this_origin_only(app: FakeApp) -> None:
    answer = app.send("GET", "/docs", key=None)

    assert not re.findall(r"(?:https?:)?//\w", answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "http" not in answer.headers["content-security-policy"]


def test_every_file_of_the_docs_page_is_served(app: FakeApp) -> None:
    page = app.send("GET", "/docs", key=None).text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)

    assert len(links) == 4
    for link in links:
        answer = app.send("GET", f"/{link}", key=None)
        assert (answer.status_code, bool(answer.content)) == (200, True)


def test_the_docs_page_uses_no_remote_validator(app: FakeApp) -> None:
    script = app.send("GET", "/docs/start.js", key=None)

    assert "validatorUrl: null" in script.text
    assert 'url: "openapi.json"' in script.text
    assert script.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("name", ["nothing.js", "..%2f..%2fapp.py", "swagger-ui.css.map"])
def test_no_other_file_is_served(app: FakeApp, name: str) -> None:
    assert app.send("GET", f"/docs/{name}", key=None).status_code == 404
