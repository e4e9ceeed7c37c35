"""Model names in requests, and the models that a key may list."""

import pytest

from serve_app.http.app import build_app
from tests.support.app import BIG, BIG_ALIAS, FakeApp


@pytest.mark.parametrize("name", ["acme/big", "ACME/Big", BIG_ALIAS, BIG_ALIAS.upper()])
def test_a_name_matches_in_any_letter_case(app: FakeApp, name: str) -> None:
    answer = app.rerank(model=name)

    assert (answer.status_code, answer.json()["model"]) == (200, BIG)
    assert app.lines[0]["model"] == BIG
    assert app.send("GET", f"/v1/models/{name}").json()["id"] == BIG


@pytest.mark.parametrize(("name", "status"), [("ACME/BIG", 200), ("MINI", 403), ("Embedded", 403)])
def test_a_restricted_key_is_restricted_in_any_letter_case(
    app: FakeApp, name: str, status: int
) -> None:
    body = {"model": name, "query": "q", "documents": ["a"]}

    assert app.send("POST", "/v1/rerank", key="rk-big-only", body=body).status_code == status
    assert app.send("GET", f"/v1/models/{name}", key="rk-big-only").status_code == status


def test_every_gateway_answers_the_same(app: FakeApp) -> None:
    first = app.send("GET", "/v1/models").json()
    app.clock.advance(60)
    app.asgi = build_app(app.service)

    assert app.send("GET", "/v1/models").json() == first


def test_a_key_restricted_to_a_model_sees_no_other(app: FakeApp) -> None:
    listed = app.send("GET", "/v1/models", key="rk-big-only").json()["data"]

    assert [model["id"] for model in listed] == [BIG]
    assert app.send("GET", "/v1/models/acme/big", key="rk-big-only").status_code == 200
    assert app.send("GET", "/v1/models/mini", key="rk-big-only").status_code == 403


@pytest.mark.parametrize("name", ["cohere", "cohere-ai"])
def test_the_libraries_of_cohere_get_the_models_in_their_form(app: FakeApp, name: str) -> None:
    headers = {"x-fern-sdk-name": name}

    listed = app.send("GET", "/v1/models", key="rk-big-only", headers=headers).json()
    one = app.send("GET", "/v1/models/mini", headers=headers).json()

    assert [(model["name"], model["default_endpoints"]) for model in listed["models"]] == [
        (BIG, [])
    ]
    assert one["default_endpoints"] == ["rerank"]


def test_other_fern_libraries_get_the_form_of_openai(app: FakeApp) -> None:
    listed = app.send("GET", "/v1/models", headers={"x-fern-sdk-name": "other"}).json()

    assert listed == app.send("GET", "/v1/models").json()


def test_an_alias_is_resolved_to_the_model_id(app: FakeApp) -> None:
    answer = app.rerank(model=BIG_ALIAS)
    found = app.send("GET", f"/v1/models/{BIG_ALIAS}").json()

    assert answer.json()["model"] == BIG
    assert app.lines[0]["model"] == BIG
    assert (found["id"], found["aliases"]) == (BIG, [BIG_ALIAS])


def test_a_key_limits_a_model_under_every_name(app: FakeApp) -> None:
    allowed = app.send("GET", f"/v1/models/{BIG_ALIAS}", key="rk-big-only")
    by_alias = {"model": BIG_ALIAS, "query": "q", "documents": ["a"]}

    assert allowed.status_code == 200
    assert app.send("POST", "/v1/rerank", key="rk-big-only", body=by_alias).status_code == 200


def test_a_key_without_the_scope_sees_no_model(app: FakeApp) -> None:
    assert app.send("GET", "/v1/models", key="rk-admin").status_code == 403


def test_a_model_has_the_facts_that_its_files_and_its_card_state(app: FakeApp) -> None:
    big = app.send("GET", "/v1/models/acme/big").json()
    mini = app.send("GET", "/v1/models/mini").json()
    listed = app.send("GET", "/v1/models").json()["data"]

    assert mini == listed[0] | {
        "task": "text-ranking",
        "speed": {"tokens_per_s": 12_500.0},
        "card": mini["card"],
    }
    assert (mini["card"]["license"], mini["card"]["languages"]) == ("mit", ["en"])
    assert mini["card"]["quality"][0]["origin"] == "published"
    assert big["speed"] == {"tokens_per_s": None}
    assert set(map(str, big["card"].values())) == {"None", "[]"}
    assert big["card"].keys() == mini["card"].keys()
