"""Documents that do not fit the model: refuse them, or divide them into windows.

Each window's text is tokenized alone, so it gets the score of a document with this text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from serve_app.domain import windows
from serve_app.domain.errors import InvalidRequest, TooLarge
from serve_app.domain.job import Job, TextPair
from serve_app.domain.tokenized import Pair, Window
from serve_app.engine.text_prefix import TextEncoder, tokens_at_most

Rooms = Mapping[str, int]
"""The tokens of a document that fit the model together with each query."""


def refuse_truncated(job: Job, pairs: Sequence[Pair], rooms: Rooms, encoder: TextEncoder) -> None:
    """Raises: InvalidRequest, about the first document that is truncated."""
    long = [pair.index for pair in pairs if pair.truncated]
    if not long:
        return
    query, document = job.pairs[long[0]]
    tokens, read = encoder.count(document), rooms[query]
    if job.document_tokens_max is not None:
        read = min(read, job.document_tokens_max)
    problem = f"has {tokens:,} tokens, of which the model can read {read:,} with this query"
    if tokens <= read:
        problem = f"has {len(document):,} characters, which are too many for its {tokens:,} tokens"
    if len(long) > 1:
        problem += f"; documents that are too long: {len(long):,}"
    raise InvalidRequest(job.document_path(long[0]), problem)


def windows_at_most(job: Job, rooms: Rooms) -> int:
    """Return an upper bound, without tokenizing documents."""
    total = 0
    for query, document in job.pairs:
        tokens = tokens_at_most(document)
        if job.document_tokens_max is not None:
            tokens = min(tokens, job.document_tokens_max)
        total += min(
            windows.count(tokens, rooms[query]), job.document_windows_max or job.windows_max
        )
    return min(total, job.windows_max)


def divide(job: Job, rooms: Rooms, encoder: TextEncoder) -> tuple[Job, list[Window]]:
    """Return a job with one pair for each window, and the windows.

    Raises: TooLarge if there are more than ``job.windows_max``; no more text is read then.
    """
    divided: list[Window] = []
    for index, pair in enumerate(job.pairs):
        left = job.windows_max - len(divided)
        divided += _windows(job, index, rooms[pair.query], left, encoder)
        if len(divided) > job.windows_max:
            field = job.document_path(index)
            raise TooLarge(field, job.windows_max, "windows of all documents together")
    pairs = (job.pairs[each.document] for each in divided)
    texts = tuple(
        TextPair(query, document[each.start : each.end])
        for each, (query, document) in zip(divided, pairs, strict=True)
    )
    return replace(job, pairs=texts, document_tokens_max=None), divided


def _windows(job: Job, index: int, room: int, left: int, encoder: TextEncoder) -> list[Window]:
    """If there are more windows than ``left``, return some of them."""
    text = job.pairs[index].document
    windows_max = min(left, job.document_windows_max or left)
    offsets = encoder.offsets(text, windows_max * room + 1)
    tokens = len(offsets)
    if job.document_tokens_max is not None:
        tokens = min(tokens, job.document_tokens_max)
    planned = windows.plan(tokens, room)
    kept = planned[: job.document_windows_max]
    truncated = tokens < len(offsets) or len(kept) < len(planned)
    return [
        Window(
            document=index,
            start=int(offsets[each.start, 0]) if each.start else 0,
            end=len(text) if each.stop == len(offsets) else int(offsets[each.stop - 1, 1]),
            truncated=truncated,
        )
        for each in kept
    ]
