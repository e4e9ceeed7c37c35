"""Scores portions together, so that no portion's failure is another's."""

import math
from collections.abc import Sequence

from serve_app.domain.errors import EngineFailure
from serve_app.domain.model import Portion
from serve_app.ports import Engine


def score_each(engine: Engine, portions: Sequence[Portion]) -> list[list[float] | EngineFailure]:
    """The logits of each portion, or why it has none. Blocks its thread.

    When all fail together each is tried alone. A logit that is not a finite number fails its
    portion only.
    """
    try:
        return [_finite(logits) for logits in engine.score(portions)]
    except EngineFailure as failure:
        if len(portions) == 1:
            # A copy: its traceback holds all that the model had on the device.
            return [EngineFailure(*failure.args)]
    return [score_each(engine, [portion])[0] for portion in portions]


def _finite(logits: list[float]) -> list[float] | EngineFailure:
    if all(math.isfinite(logit) for logit in logits):
        return logits
    return EngineFailure("a logit is not a finite number")
