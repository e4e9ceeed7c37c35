"""Convert portions (`serve_app.domain.model.Portion`) to arrays and check them.

An invalid portion must not reach the device: one token id outside the vocabulary breaks CUDA for
the whole process.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve_app.domain.errors import EngineFailure
from serve_app.domain.model import INPUT_ID_BYTES, Portion

Ids = NDArray[np.int32]
"""Token ids of one sequence, shape (T,)."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sequence as the model reads it, with special tokens."""

    ids: Ids
    query_tokens: int
    """Number of leading tokens in the query's segment."""


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Limits of the loaded model's input."""

    vocabulary: int
    """Token ids are below this."""

    pair_tokens_max: int
    batch_tokens_max: int
    """Larger batches are not rejected here, because they break nothing."""


def unpack(portion: Portion, limits: InputLimits) -> list[Encoded]:
    """Return the portion's pairs in order; the arrays are views of its bytes.

    Raises: EngineFailure when the portion is inconsistent or not supported.
    """
    if sum(portion.lengths) * INPUT_ID_BYTES != len(portion.input_ids):
        raise EngineFailure("a portion's lengths do not add up to its token ids")
    if len(portion.query_tokens) != len(portion.lengths):
        raise EngineFailure("a portion does not have one query length for each pair")
    for length, query_tokens in zip(portion.lengths, portion.query_tokens, strict=True):
        if not 1 <= length <= limits.pair_tokens_max:
            raise EngineFailure(
                f"a pair has {length} tokens; this model takes 1 to {limits.pair_tokens_max}"
            )
        if not 0 <= query_tokens <= length:
            raise EngineFailure("a pair's query segment is longer than the pair")
    ids: Ids = np.frombuffer(portion.input_ids, dtype="<i4")
    if len(ids) and not 0 <= ids.min() <= ids.max() < limits.vocabulary:
        raise EngineFailure(f"a token id is outside the vocabulary of {limits.vocabulary}")
    pairs = np.split(ids, np.cumsum(portion.lengths)[:-1]) if portion.lengths else []
    return [
        Encoded(pair, query_tokens)
        for pair, query_tokens in zip(pairs, portion.query_tokens, strict=True)
    ]


def lengths(sequences: Sequence[Encoded]) -> list[int]:
    return [len(sequence.ids) for sequence in sequences]
