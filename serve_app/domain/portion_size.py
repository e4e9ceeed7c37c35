"""Target size of portions and batches.

A running portion cannot be preempted. So it is limited to the tokens that a replica scores in
`RUN_S`: thousands on a GPU, hundreds on a CPU.
"""

RUN_S = 0.15
"""In a shorter run, the overhead of the call would matter."""

TOKENS_MIN = 512
"""Also the first limit, until a replica has reported its speed."""


def tokens_in_time(tokens_per_s: float) -> int:
    return max(TOKENS_MIN, round(tokens_per_s * RUN_S))
