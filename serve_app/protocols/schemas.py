"""The wire types as component schemas of an OpenAPI 3.0 document.

The bundled Swagger UI (4.15) does not support OpenAPI 3.1. Version 3.0 has no ``null`` type and no
``const``, so the schemas use ``nullable`` and ``enum`` instead.
"""

from pydantic import BaseModel
from pydantic.json_schema import (
    GenerateJsonSchema,
    JsonSchemaMode,
    JsonSchemaValue,
    models_json_schema,
)
from pydantic_core import core_schema

from serve_app.protocols.admin import (
    AuditEntryList,
    CreditCreate,
    GrantList,
    GrantObject,
    KeyChange,
    KeyCreate,
    KeyList,
    KeyObject,
    KeyRotation,
    NewKeyObject,
    RefundCreate,
    TenantChange,
    TenantCreate,
    TenantList,
    TenantObject,
)
from serve_app.protocols.models_list import ModelList, ModelObject
from serve_app.protocols.problem_body import ErrorBody
from serve_app.protocols.rerank_schema import RerankRequest, RerankResponse
from serve_app.protocols.score_schema import ScoreRequest, ScoreResponse
from serve_app.protocols.status import HealthBody, ReadinessBody
from serve_app.protocols.usage import TenantUsageList, UsageList

TYPES: list[tuple[type[BaseModel], JsonSchemaMode]] = [
    (RerankRequest, "validation"),
    (RerankResponse, "validation"),
    (ScoreRequest, "validation"),
    (ScoreResponse, "validation"),
    (ModelList, "validation"),
    (ModelObject, "validation"),
    (ErrorBody, "validation"),
    (HealthBody, "validation"),
    (ReadinessBody, "validation"),
    (UsageList, "validation"),
    (TenantUsageList, "validation"),
    (TenantCreate, "validation"),
    (TenantChange, "validation"),
    (TenantObject, "validation"),
    (TenantList, "validation"),
    (KeyCreate, "validation"),
    (KeyChange, "validation"),
    (KeyRotation, "validation"),
    (KeyObject, "validation"),
    (NewKeyObject, "validation"),
    (KeyList, "validation"),
    (CreditCreate, "validation"),
    (RefundCreate, "validation"),
    (GrantObject, "validation"),
    (GrantList, "validation"),
    (AuditEntryList, "validation"),
]


class _OpenApi30(GenerateJsonSchema):
    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        if "$ref" in inner:  # In 3.0, a reference must be alone in its object.
            return {"allOf": [inner], "nullable": True}
        return {**inner, "nullable": True}

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        result = super().literal_schema(schema)
        if "const" in result:
            result["enum"] = [result.pop("const")]
        return result


def component_schemas() -> dict[str, JsonSchemaValue]:
    """Return the schemas by type name, with references into ``#/components/schemas``."""
    _, definitions = models_json_schema(
        TYPES, ref_template="#/components/schemas/{model}", schema_generator=_OpenApi30
    )
    schemas: dict[str, JsonSchemaValue] = definitions["$defs"]
    return schemas
