"""Which model a client's word means, and which models a key gets to see."""

from dataclasses import replace

import pytest

from serve_app.domain.units import ModelId
from tests.contract.house import BIG, MINI, House


@pytest.mark.parametrize(
    ("name", "model"), [(None, MINI), ("embedded", MINI), ("acme/big", BIG), ("nope", "nope")]
)
def test_no_name_and_embedded_mean_the_default_model(
    house: House, name: str | None, model: str
) -> None:
    assert house.service.resolve_model(name) == model


def test_embedded_means_itself_where_a_model_is_called_so(house: House) -> None:
    pipeline = house.service.pipeline
    named = {ModelId("embedded"): pipeline.models[BIG]} | dict(pipeline.models)
    service = replace(house.service, pipeline=replace(pipeline, models=named))

    assert service.resolve_model("embedded") == "embedded"
    assert service.resolve_model(None) == MINI


def test_a_key_bound_to_one_model_sees_no_other(house: House) -> None:
    listed = house.send("GET", "/v1/models", key="rk-big-only").json()["data"]

    assert [model["id"] for model in listed] == [BIG]
    assert house.send("GET", "/v1/models/acme/big", key="rk-big-only").status_code == 200
    assert house.send("GET", "/v1/models/mini", key="rk-big-only").status_code == 403


def test_a_key_for_other_things_sees_none(house: House) -> None:
    assert house.send("GET", "/v1/models", key="rk-admin").status_code == 403
