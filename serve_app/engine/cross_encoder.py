"""Cross-encoder behind the `Engine` port.

It runs any `*ForSequenceClassification` of transformers with one label, and models that
sentence-transformers saves as modules.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.domain.errors import EngineFailure
from serve_app.domain.model import Portion
from serve_app.domain.units import Tokens
from serve_app.engine.cpu import suitable_passes
from serve_app.engine.facts import ModelFacts
from serve_app.engine.forward import Arrays, Logits, PaddedForward, collect
from serve_app.engine.limits import EngineLimits
from serve_app.engine.packing import split
from serve_app.engine.probes import probe
from serve_app.engine.sources import first_line
from serve_app.engine.template import Template
from serve_app.engine.unpacking import InputLimits, unpack


@dataclass(frozen=True, slots=True)
class Identity:
    """See `serve_app.domain.model_card.ReplicaInfo`."""

    device: str
    precision: str
    description: str
    activation: str


class CrossEncoder:
    """Scores pairs, each as one sequence.

    A GPU accepts two batches at once; see `docs/decisions/0013`.
    """

    def __init__(
        self,
        identity: Identity,
        forward: PaddedForward,
        template: Template,
        limits: InputLimits,
    ) -> None:
        self.device = identity.device
        self.precision = identity.precision
        self.description = identity.description
        self.activation = identity.activation
        self.pair_tokens_max = limits.pair_tokens_max
        self.batches_at_once = 1 if identity.device == "cpu" else 2
        self._forward = forward
        self._template = template
        self._limits = limits

    def score(self, portions: Sequence[Portion]) -> list[list[float]]:
        """See `serve_app.ports.Engine`.

        A logit has the same bits in every batch only where OpenVINO computes; see
        `docs/decisions/0019`.
        """
        pairs = [pair for portion in portions for pair in unpack(portion, self._limits)]
        logits = self._forward(pairs).squeeze(1).tolist() if pairs else []
        return split(logits, [len(portion.lengths) for portion in portions])

    def warm_up(self) -> None:
        """Score a full pass of the longest pairs and two of the shortest pairs.

        A lack of memory then shows at start-up, and the first request is not slow.

        Raises: EngineFailure, also for a logit that is not finite.
        """
        longest = self._limits.pair_tokens_max
        pass_tokens = min(self._forward.forward_tokens_max, self._limits.batch_tokens_max)
        pairs = max(1, pass_tokens // longest)
        try:
            self._score_finite([probe(self._template, longest, pairs), self._shortest(pairs=2)])
        except EngineFailure as failure:
            cause = failure.__cause__
            # Compared by name, because torch is not imported where OpenVINO computes.
            if not isinstance(cause, Exception) or type(cause).__name__ != "OutOfMemoryError":
                raise
            raise EngineFailure(
                f"{self.device} lacks memory for a pass of {pairs} x {longest} tokens; lower "
                f"batch_tokens_max or forward_tokens_max ({first_line(cause)})"
            ) from failure

    def check(self) -> None:
        self._score_finite([self._shortest()])

    def _shortest(self, pairs: int = 1) -> Portion:
        return probe(self._template, self._template.tokens, pairs)

    def _score_finite(self, portions: Sequence[Portion]) -> None:
        for logits in self.score(portions):
            for logit in logits:
                if not math.isfinite(logit):
                    raise EngineFailure(f"the logit of a pair of special tokens is {logit}")


def cross_encoder(
    facts: ModelFacts,
    identity: Identity,
    limits: EngineLimits,
    compute: Callable[[Arrays], Any],
    collect: Callable[[list[Any]], Callable[[], Logits]] = collect,
    length_step: int = 1,
) -> CrossEncoder:
    """See `serve_app.engine.forward.PaddedForward` for the two functions and ``length_step``."""
    passes = suitable_passes(identity.device, limits.batch_tokens_max)
    forward = PaddedForward(
        compute=compute,
        pad_id=facts.pad_id,
        document_type=facts.document_type,
        forward_tokens_max=limits.forward_tokens_max or passes.tokens_max,
        pass_cost_tokens=passes.cost_tokens,
        length_step=length_step,
        length_max=facts.pair_tokens_max,
        collect=collect,
    )
    input_limits = InputLimits(
        facts.vocabulary, Tokens(facts.pair_tokens_max), limits.batch_tokens_max
    )
    return CrossEncoder(identity, forward, facts.template, input_limits)
