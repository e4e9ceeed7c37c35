"""Pairs made of special tokens only, to try an engine with.

Of no other token id is it known that the model has learnt it, or has it at all. Pure.
"""

import numpy as np

from serve_app.domain.model import Portion
from serve_app.domain.units import RequestId
from serve_app.engine.tokenizer import Template


def probe(template: Template, tokens: int, pairs: int) -> Portion:
    """``pairs`` equal pairs of ``tokens`` each, or as few as the template itself has."""
    start = (*template.prefix, *template.middle)
    tokens = max(tokens, template.tokens)
    filling = (*start, *template.suffix)[-1:] * (tokens - template.tokens)
    ids = [*start, *filling, *template.suffix] * pairs
    return Portion(
        request_id=RequestId("probe"),
        input_ids=np.array(ids, dtype="<i4").tobytes(),
        lengths=(tokens,) * pairs,
        query_tokens=(len(start),) * pairs,
    )
