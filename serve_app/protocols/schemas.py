"""The wire types as component schemas of an OpenAPI 3.1 document."""

from collections.abc import Iterable

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaValue, models_json_schema

WireType = type[BaseModel]


def component_schemas(types: Iterable[WireType]) -> dict[str, JsonSchemaValue]:
    """Return the schemas by type name."""
    _, definitions = models_json_schema(
        [(kind, "validation") for kind in types],
        ref_template="#/components/schemas/{model}",
    )
    schemas: dict[str, JsonSchemaValue] = definitions["$defs"]
    return schemas
