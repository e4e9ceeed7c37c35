"""Score portions together, so that a failing portion does not affect the others."""

import math
from collections.abc import Sequence

from serve_app.domain.errors import EngineFailure
from serve_app.domain.model import Portion
from serve_app.ports import Engine


def score_each(engine: Engine, portions: Sequence[Portion]) -> list[list[float] | EngineFailure]:
    """Return the logits or the failure of each portion. Blocks.

    If all fail together, each is scored alone. A logit that is not a finite number fails only its
    own portion.
    """
    try:
        return [_finite(logits) for logits in engine.score(portions)]
    except EngineFailure as failure:
        if len(portions) == 1:
            # Copied, because its traceback keeps the model's data on the device alive.
            return [EngineFailure(*failure.args)]
    return [score_each(engine, [portion])[0] for portion in portions]


def _finite(logits: list[float]) -> list[float] | EngineFailure:
    if all(math.isfinite(logit) for logit in logits):
        return logits
    return EngineFailure("a logit is not a finite number")
