"""all-MiniLM-L6-v2 behind the `Engine` port: a stand-in until a trained cross-encoder ships.

A bi-encoder reads query and document apart. Each pair is cut at the end of its query segment, both
halves become sequences of their own, and the logit is a monotone function of their cosine:

    [CLS] q [SEP] d [SEP]  ─>  [CLS] q [SEP]   (each distinct query once a batch)
                               [CLS] d [SEP]

Pooling (the mean over all tokens) and cosine are in float32 whatever the encoder computes in.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from serve_app.engine.forward import Inputs
from serve_app.engine.pair_engine import PairEngine
from serve_app.engine.unpacking import Encoded, Ids

DESCRIPTION = "bi-encoder all-MiniLM-L6-v2 by cosine (stand-in until a trained cross-encoder ships)"

# Logistic regression on 400 questions of SQuAD v1.1 (train), each with its paragraph and one that
# BM25 found: the median positive, cosine 0.59, gets 0.71, the median negative, 0.40, gets 0.31.
LOGIT_PER_COSINE = 8.8
LOGIT_AT_COSINE_0 = -4.3


class BiEncoder(PairEngine):
    """Each pair is two sequences; `PaddedForward` computes `unit_vectors`."""

    def _logits(self, pairs: Sequence[Encoded]) -> torch.Tensor:
        queries: dict[bytes, Encoded] = {}
        for pair in pairs:
            query = pair.ids[: pair.query_tokens]
            queries.setdefault(query.tobytes(), _alone(query))
        places = {key: place for place, key in enumerate(queries)}
        query_places = [places[pair.ids[: pair.query_tokens].tobytes()] for pair in pairs]

        prefix = np.array(self._template.prefix, dtype=np.int32)
        documents = [
            _alone(np.concatenate([prefix, pair.ids[pair.query_tokens :]])) for pair in pairs
        ]
        vectors = self._forward([*queries.values(), *documents])
        cosines = (vectors[query_places] * vectors[len(queries) :]).sum(1)
        return LOGIT_PER_COSINE * cosines + LOGIT_AT_COSINE_0


def _alone(ids: Ids) -> Encoded:
    return Encoded(ids, query_tokens=len(ids))


def unit_vectors(model: Any, inputs: Inputs) -> torch.Tensor:
    """(B, H) float32 of length 1: the mean over each sequence's tokens, padding left out."""
    hidden = model(**inputs).last_hidden_state.float()
    mask = inputs["attention_mask"].unsqueeze(-1)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    vectors: torch.Tensor = normalize(mean, dim=1)
    return vectors
