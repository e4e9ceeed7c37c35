"""Read the columns of a tokenized job pair by pair."""

from itertools import accumulate

from serve_app.domain.model import INPUT_ID_BYTES
from serve_app.domain.tokenized import Pair, TokenizedJob
from serve_app.domain.units import Tokens


def pairs_in(job: TokenizedJob) -> tuple[Pair, ...]:
    starts = [0, *accumulate(job.lengths)]
    return tuple(
        Pair(
            index,
            job.input_ids[starts[index] * INPUT_ID_BYTES : starts[index + 1] * INPUT_ID_BYTES],
            Tokens(job.query_tokens[index]),
            job.truncated[index],
            job.windows[index] if job.windows else None,
        )
        for index in range(len(job.lengths))
    )
