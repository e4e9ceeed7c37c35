"""Names of models in requests."""

import pytest

from serve_app.domain.model_names import ModelNames
from serve_app.domain.units import ModelId

MINI, BIG = ModelId("mini"), ModelId("Acme/Big")
NAMES = ModelNames({MINI: (), BIG: ("big-reranker",)})


@pytest.mark.parametrize(
    ("name", "model"),
    [
        (None, MINI),
        ("embedded", MINI),
        ("EMBEDDED", MINI),
        ("Acme/Big", BIG),
        ("acme/big", BIG),
        ("Big-Reranker", BIG),
        ("Nope", "Nope"),
    ],
)
def test_a_name_is_resolved_to_a_model_id(name: str | None, model: str) -> None:
    assert NAMES.resolve(name) == model


def test_embedded_means_the_model_of_that_name_if_there_is_one() -> None:
    names = ModelNames({MINI: (), ModelId("Embedded"): ()})

    assert names.resolve("embedded") == "Embedded"
    assert names.resolve(None) == MINI
