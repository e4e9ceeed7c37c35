"""Run a model over sequences in padded passes.

Shapes for a pass of B sequences padded to L tokens:
    input_ids       (B, L) int64   padded at the end with the model's padding id
    attention_mask  (B, L) int64   1 for tokens, 0 for padding
    token_type_ids  (B, L) int64   only for models that have types: 0 query, 1 document
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve_app.domain.errors import EngineFailure
from serve_app.engine.packing import plan, unplan
from serve_app.engine.unpacking import Encoded, lengths

Arrays = dict[str, NDArray[np.int64]]
Logits = NDArray[np.float32]


def collect(launched: Sequence[Logits]) -> Callable[[], Logits]:
    """See `PaddedForward.collect`, for logits that are already there."""
    return partial(np.concatenate, launched)


@dataclass(frozen=True, slots=True)
class PaddedForward:
    """Runs the passes of one model."""

    compute: Callable[[Arrays], Any]
    """Computes (B, 1) logits, or launches that, row by row: no row may depend on another."""

    pad_id: int
    document_type: int
    """See `serve_app.engine.facts.ModelFacts.document_type`."""

    forward_tokens_max: int
    """Most tokens of a pass, padding included; a longer sequence runs alone."""

    pass_cost_tokens: int
    """See `serve_app.engine.packing.plan`."""

    length_step: int
    """Passes are padded to a multiple of this number of tokens, but not beyond ``length_max``."""

    length_max: int
    """Most tokens of a sequence; a model may have no positions for more."""

    collect: Callable[[list[Any]], Callable[[], Logits]] = collect
    """Takes the results of ``compute``, and returns a function that waits for the logits of all
    passes."""

    launching: Lock = field(default_factory=Lock)
    """Held by a caller until all its passes are launched; see `docs/decisions/0013`."""

    def __call__(self, sequences: Sequence[Encoded]) -> Logits:
        """Return (N, 1) logits for N >= 1 sequences, in their order.

        Raises: EngineFailure when the model fails, out of memory included.
        """
        padded = [self._padded(tokens) for tokens in lengths(sequences)]
        passes = plan(padded, self.forward_tokens_max, self.pass_cost_tokens)
        try:
            with self.launching:
                # Collect once, at the end, because each copy from a GPU would wait for it.
                computed = self.collect(
                    [
                        self.compute(
                            self._inputs([sequences[each] for each in one.members], one.longest)
                        )
                        for one in passes
                    ]
                )
            rows = computed()
        except Exception as error:  # a model's code may raise anything
            raise EngineFailure(f"{type(error).__name__}: {error}") from error
        return rows[unplan(passes)]

    def _padded(self, tokens: int) -> int:
        return min(-(-tokens // self.length_step) * self.length_step, self.length_max)

    def _inputs(self, sequences: Sequence[Encoded], length: int) -> Arrays:
        shape = len(sequences), length
        input_ids = np.full(shape, self.pad_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        for row, sequence in enumerate(sequences):
            tokens = len(sequence.ids)
            input_ids[row, :tokens] = sequence.ids
            attention_mask[row, :tokens] = 1
            types[row, sequence.query_tokens : tokens] = self.document_type
        arrays = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.document_type:
            arrays["token_type_ids"] = types
        return arrays
