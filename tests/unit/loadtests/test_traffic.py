"""The load tests' texts have the stated lengths, counted with the embedded model's tokenizer."""

from statistics import mean, quantiles

from loadtests.lengths import QUERY_TOKENS_MEAN
from loadtests.traffic import Traffic
from serve_app.engine.loading import load_tokenizer
from tests.support.fakes import a_job


def test_pairs_have_the_lengths_of_ms_marco() -> None:
    tokenizer = load_tokenizer("embedded")
    traffic = Traffic(seed=1)
    lengths: list[int] = []
    for _ in range(20):
        request = traffic.request(documents=100)
        job = a_job(documents=tuple(request.documents))
        lengths += tokenizer.tokenize(job).lengths
    # The job's own query is 2 tokens long; the traffic's are about 7.
    lengths = [tokens - 2 + round(QUERY_TOKENS_MEAN) for tokens in lengths]

    cuts = quantiles(lengths, n=20)

    assert 62 <= mean(lengths) <= 72
    assert abs(cuts[0] - 37) <= 4
    assert abs(cuts[9] - 62) <= 4
    assert abs(cuts[18] - 114) <= 8


def test_the_same_seed_sends_the_same_texts() -> None:
    assert Traffic(7).request(3) == Traffic(7).request(3)
    assert Traffic(7).request(3) != Traffic(8).request(3)
