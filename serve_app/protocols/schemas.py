"""The wire types as component schemas of an OpenAPI 3.0 document.

The bundled Swagger UI (4.15) does not support OpenAPI 3.1. Version 3.0 has no ``null`` type and no
``const``, so the schemas use ``nullable`` and ``enum`` instead.
"""

from collections.abc import Iterable

from pydantic import BaseModel
from pydantic.json_schema import (
    GenerateJsonSchema,
    JsonSchemaValue,
    models_json_schema,
)
from pydantic_core import core_schema

WireType = type[BaseModel]


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


def component_schemas(types: Iterable[WireType]) -> dict[str, JsonSchemaValue]:
    """Return the schemas by type name, with references into ``#/components/schemas``."""
    _, definitions = models_json_schema(
        [(kind, "validation") for kind in types],
        ref_template="#/components/schemas/{model}",
        schema_generator=_OpenApi30,
    )
    schemas: dict[str, JsonSchemaValue] = definitions["$defs"]
    return schemas
