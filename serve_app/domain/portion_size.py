"""Target size of portions and batches: the tokens that a replica scores in a fixed time.

A running portion cannot be preempted, and new jobs wait for it. So a portion is limited to the
tokens that a replica scores in `RUN_S`: thousands on a GPU, hundreds on a CPU.
"""

RUN_S = 0.15
"""Target run time of a portion. With shorter portions, the overhead of calls to replicas would
matter."""

TOKENS_MIN = 512
"""Smallest limit, and the initial one: a replica's speed is known only from its answers."""


def tokens_in_time(tokens_per_s: float) -> int:
    """Return the tokens that a replica of this speed scores in `RUN_S`, at least `TOKENS_MIN`."""
    return max(TOKENS_MIN, round(tokens_per_s * RUN_S))
