"""Do short number formats change the logits and the top 10?"""

import random
from typing import Any

from benchmarks.engine.texts import job
from benchmarks.gpu.subject import Subject
from loadtests.traffic import WORDS, Request
from serve_app.dispatch.portions import cut
from serve_app.domain.units import RequestId, Tokens
from serve_app.engine.sources import ModelLoadError
from serve_app.ports import Engine

SHORT = ("float16", "bfloat16")
TOP = 10


def run(subject: Subject, found: dict[str, Any]) -> None:
    requests = varied(subject.sizes.queries, subject.sizes.documents_per_query)
    exact = _logits(subject, "float32", requests)
    everything = [logit for logits in exact for logit in logits]
    found["pairs"] = len(everything)
    found["range_of_float32"] = max(everything) - min(everything)
    for precision in SHORT:
        try:
            short = _logits(subject, precision, requests)
        except ModelLoadError as error:  # A GPU without bfloat16.
            found[precision] = str(error)
            continue
        found[precision] = compared(exact, short)
    for name, value in found.items():
        print(f"  {name}: {value}")


def varied(queries: int, documents: int) -> list[Request]:
    """Return requests of words, digits and unknown characters; some pairs exceed 512 tokens."""
    rng = random.Random(7)
    unknown = ("日本", "naïve", "x1y2z3", "🙂", "?!")
    requests = []
    for _ in range(queries):
        texts = [
            " ".join(rng.choices((*WORDS, *unknown), k=round(600 ** rng.random())))
            for _ in range(documents)
        ]
        requests.append(Request(" ".join(rng.sample(WORDS, rng.randint(1, 10))), texts))
    return requests


def compared(exact: list[list[float]], short: list[list[float]]) -> dict[str, Any]:
    """Compare the logits of each request's documents."""
    pairs = list(zip(exact, short, strict=True))
    return {
        "difference_max": max(
            abs(one - other) for both in pairs for one, other in zip(*both, strict=True)
        ),
        "same_top_10": sum(set(_top(one)) == set(_top(other)) for one, other in pairs),
        "same_order_of_top_10": sum(_top(one) == _top(other) for one, other in pairs),
        "queries": len(pairs),
    }


def _top(logits: list[float]) -> list[int]:
    return sorted(range(len(logits)), key=lambda place: -logits[place])[:TOP]


def _logits(subject: Subject, precision: str, requests: list[Request]) -> list[list[float]]:
    engine = subject.engine(precision, subject.sizes.production_tokens)
    return [_scores(engine, subject, request) for request in requests]


def _scores(engine: Engine, subject: Subject, request: Request) -> list[float]:
    tokenized = subject.tokenizer.tokenize(job(request))
    portions = cut(RequestId("r"), tokenized, Tokens(subject.sizes.production_tokens))
    logits = [0.0] * len(tokenized.lengths)
    for portion, answer in zip(
        portions, engine.score([each.portion() for each in portions]), strict=True
    ):
        for place, logit in zip(portion.indices, answer, strict=True):
            logits[place] = logit
    return logits
