"""Target size of portions and batches.

A running portion cannot be preempted. So it is limited to the tokens that a replica scores in
`RUN_S`: thousands on a GPU, hundreds on a CPU.
"""

RUN_S = 0.15
"""Target run time; in a shorter one, the overhead of the call would matter."""

TOKENS_MIN = 512
"""Smallest limit, and also the first one, until a replica has reported its speed."""


def tokens_in_time(tokens_per_s: float) -> int:
    return max(TOKENS_MIN, round(tokens_per_s * RUN_S))
