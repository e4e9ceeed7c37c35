"""Pairs of special tokens only, for warm-up and checks. Pure.

Special tokens are the only ids that every model has.
"""

import numpy as np

from serve_app.domain.model import Portion
from serve_app.domain.units import RequestId
from serve_app.engine.template import Template


def probe(template: Template, tokens: int, pairs: int) -> Portion:
    """Return ``pairs`` equal pairs of ``tokens`` each, at least the template's own tokens."""
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
