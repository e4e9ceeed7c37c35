"""The length of a list is checked before its entries are validated, which may take long."""

import pytest
from pydantic import BaseModel, TypeAdapter

from serve_app.protocols import admin, manage
from serve_app.protocols.rerank_schema import RerankRequest
from serve_app.protocols.score_schema import ScoreRequest

REQUESTS: list[type[BaseModel]] = [
    RerankRequest,
    ScoreRequest,
    admin.TenantCreate,
    admin.TenantChange,
    admin.KeyCreate,
    admin.KeyChange,
    admin.KeyRotation,
    manage.OwnKeyCreate,
    admin.CreditCreate,
    admin.RefundCreate,
]


@pytest.mark.parametrize("request_type", REQUESTS, ids=lambda each: each.__name__)
def test_a_list_with_many_wrong_entries_is_one_error(request_type: type[BaseModel]) -> None:
    for name, field in request_type.model_fields.items():
        if "list[" not in str(field.annotation):
            continue
        fields = {name: [object()] * 10_000}
        with pytest.raises(ValueError, match=name) as refused:
            TypeAdapter(request_type).validate_python(fields)

        of_list = [error for error in refused.value.errors() if error["loc"][0] == name]  # type: ignore[attr-defined]
        assert len(of_list) <= 101, f"{request_type.__name__}.{name} needs a bound"
