"""Cut a job into portions. Pure.

Pairs are sorted by length, so that portions need little padding. Portions have nearly equal cost,
so that replicas finish them at nearly the same time.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from serve_app.domain.model import INPUT_ID_BYTES, Portion
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import RequestId, Tokens


@dataclass(frozen=True, slots=True)
class CutPortion:
    """One portion of a job."""

    request_id: RequestId
    job: TokenizedJob
    indices: Sequence[int]
    """The position in the job of each pair."""

    starts: Sequence[int]
    """The number of tokens before each pair of the job, and the total."""

    tokens: Tokens

    def portion(self) -> Portion:
        """Copy the pairs. Copying a whole large job at once would hold up the event loop."""
        job, starts, size = self.job, self.starts, INPUT_ID_BYTES
        ids = [job.input_ids[starts[i] * size : starts[i + 1] * size] for i in self.indices]
        return Portion(
            request_id=self.request_id,
            input_ids=b"".join(ids),
            lengths=tuple([job.lengths[index] for index in self.indices]),
            query_tokens=tuple([job.query_tokens[index] for index in self.indices]),
        )


def cut(request_id: RequestId, job: TokenizedJob, tokens_max: Tokens) -> list[CutPortion]:
    """Cut ``job`` into as few portions of at most ``tokens_max`` tokens as its order allows.

    Portions have nearly the same cost; only the last may cost less. A single pair longer than
    ``tokens_max`` is a portion of its own. Portions are ordered from short pairs to long ones.
    """
    assert job.lengths
    order = sorted(range(len(job.lengths)), key=job.lengths.__getitem__)
    line = [0, *accumulate([job.lengths[index] for index in order])]
    fewest = len(_filled(line, tokens_max))
    # Find the lowest limit that yields no more portions.
    limits = range(min(tokens_max, line[-1] // fewest), tokens_max)
    limit = limits.start + bisect_left(
        limits, -fewest, key=lambda limit: -len(_filled(line, limit))
    )
    starts = [0, *accumulate(job.lengths)]
    return [
        CutPortion(request_id, job, order[start:end], starts, Tokens(line[end] - line[start]))
        for start, end in _filled(line, limit)
    ]


def _filled(line: Sequence[int], tokens_max: int) -> list[tuple[int, int]]:
    """Return the portions' starts and ends.

    ``line`` has the number of tokens before each pair, and the total.
    """
    portions: list[tuple[int, int]] = []
    start, pairs = 0, len(line) - 1
    while start < pairs:
        end = max(start + 1, bisect_right(line, line[start] + tokens_max) - 1)
        portions.append((start, end))
        start = end
    return portions
