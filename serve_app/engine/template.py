"""Learn from a tokenizer which special tokens it puts around a pair."""

from dataclasses import dataclass
from typing import Any

from serve_app.engine.sources import ModelLoadError


@dataclass(frozen=True, slots=True)
class Template:
    """The special tokens around the two texts of a pair."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    document_type: int
    """Token type of the document and the suffix; the tokens before have type 0."""

    @property
    def tokens(self) -> int:
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    @classmethod
    def learn(cls, backend: Any, model: str) -> "Template":
        """Learn the template from a pair of probe texts.

        Raises: ModelLoadError when special tokens do not simply surround the texts, or there are
            none: the model is then no cross-encoder for pairs.
        """
        query, document = "a b", "c d e"
        query_ids, document_ids = (
            backend.encode(text, add_special_tokens=False).ids for text in (query, document)
        )
        pair = backend.encode(query, document)
        special = list(pair.special_tokens_mask)
        text_starts = special.index(0) if 0 in special else 0
        query_ends = text_starts + len(query_ids)
        document_starts = query_ends + [*special[query_ends:], 0].index(0)
        document_ends = document_starts + len(document_ids)
        template = cls(
            prefix=tuple(pair.ids[:text_starts]),
            middle=tuple(pair.ids[query_ends:document_starts]),
            suffix=tuple(pair.ids[document_ends:]),
            document_type=pair.type_ids[document_starts],
        )
        types = [0] * document_starts
        types += [template.document_type] * (len(pair.ids) - document_starts)
        ids = [*template.prefix, *query_ids, *template.middle, *document_ids, *template.suffix]
        if (ids, types) != (pair.ids, pair.type_ids) or not template.tokens:
            raise ModelLoadError(
                f"model {model}: its tokenizer does not put special tokens around a query and a "
                "document; choose a model trained on such pairs"
            )
        return template
