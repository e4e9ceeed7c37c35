"""Warnings about texts of which a model reads so little that their scores mean little. Pure."""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from serve_app.domain.job import Job
from serve_app.domain.model import INPUT_ID_BYTES
from serve_app.domain.tokenized import Pair
from serve_app.engine.template import Template

DOCUMENT_TOKENS_FEW = 16
"""A query that leaves fewer tokens than this to a truncated document is worth a warning."""

NAMES_MAX = 5
"""Most texts that a warning names."""

Ids = npt.NDArray[np.int32]


def unknown_token(backend: str) -> int | None:
    """Return the id of the token for text outside the vocabulary, or ``None``.

    Vocabularies of bytes have none. ``backend`` is the Rust tokenizer as JSON.
    """
    model = json.loads(backend)["model"]
    if "unk_id" in model:  # Of Unigram, whose vocabulary is a list.
        found: int | None = model["unk_id"]
    else:
        found = model["vocab"].get(model.get("unk_token"))
    return found


def text_warnings(
    job: Job, pairs: Sequence[Pair], template: Template, room: int, unknown: int | None
) -> tuple[str, ...]:
    """Return a sentence for each kind of problem.

    ``room`` is the most tokens of the two texts of a pair. ``job`` has a pair for each window.
    """
    return (
        *_about_unknown_texts(job, pairs, template, unknown),
        *_about_long_queries(job, pairs, template, room),
    )


def _about_unknown_texts(
    job: Job, pairs: Sequence[Pair], template: Template, unknown: int | None
) -> Iterator[str]:
    if unknown is None:
        return
    # Quicker than comparing all ids, because most texts have no unknown token.
    token = unknown.to_bytes(INPUT_ID_BYTES, "little")
    suspects = {pair.index: pair for pair in pairs if token in pair.input_ids}
    queries = [
        job.query_path(suspects[index].document)
        for index in job.queries.values()
        if index in suspects and _is_mostly(unknown, _query(suspects[index], template))
    ]
    if queries:
        yield f"The model does not know most of the text of {_named(queries)}: scores mean little."
    documents = dict.fromkeys(
        str(pair.document)
        for pair in suspects.values()
        if _is_mostly(unknown, _document(pair, template))
    )
    if documents:
        yield (
            "The model does not know most of the text of the documents at index "
            f"{_named([*documents])}: their scores mean little."
        )


def _about_long_queries(
    job: Job, pairs: Sequence[Pair], template: Template, room: int
) -> Iterator[str]:
    truncated = {job.pairs[pair.index].query for pair in pairs if pair.truncated}
    left = {
        job.query_path(pairs[index].document): room - len(_query(pairs[index], template))
        for query, index in job.queries.items()
        if query in truncated
    }
    long = [field for field, tokens in left.items() if tokens < DOCUMENT_TOKENS_FEW]
    if long:
        least = min(left.values())
        yield (
            f"The text of {_named(long)} is so long that the model reads only "
            f"{least} token{'s' if least > 1 else ''} of a document: send a shorter one."
        )


def _query(pair: Pair, template: Template) -> Ids:
    return _ids(pair)[len(template.prefix) : pair.query_tokens - len(template.middle)]


def _document(pair: Pair, template: Template) -> Ids:
    ids = _ids(pair)
    return ids[pair.query_tokens : len(ids) - len(template.suffix)]


def _ids(pair: Pair) -> Ids:
    return np.frombuffer(pair.input_ids, dtype="<i4")


def _is_mostly(token: int, ids: Ids) -> bool:
    return 2 * int(np.count_nonzero(ids == token)) > len(ids)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more
