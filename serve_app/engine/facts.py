"""Facts about a model that are needed apart from its weights and graph."""

from dataclasses import dataclass
from typing import Any

from serve_app.engine.template import Template


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts about a model and its tokenizer."""

    description: str
    """The architecture and its size as readable text."""

    activation: str
    """See `serve_app.engine.saved_modules.saved_activation`."""

    vocabulary: int
    """Token ids range from 0 up to this, exclusive."""

    pad_id: int
    pair_tokens_max: int
    takes_types: bool
    """Whether token types separate the query from the document."""

    template: Template

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ModelFacts":
        """Return the facts that `dataclasses.asdict` has converted."""
        template = fields["template"]
        parts = {name: tuple(template[name]) for name in ("prefix", "middle", "suffix")}
        return cls(**fields | {"template": Template(**template | parts)})

    @property
    def document_type(self) -> int:
        """Token type of the document's segment; 0 means that the model takes no types."""
        return self.template.document_type if self.takes_types else 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's inputs in order."""
        types = ("token_type_ids",) if self.document_type else ()
        return ("input_ids", "attention_mask", *types)
