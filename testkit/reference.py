"""The two ways to compute logits that the tests compare: ours, and transformers alone."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from serve_app.domain.job import Job, pairs_of
from serve_app.domain.model import Portion, Truncation
from serve_app.domain.tokenized import Pair
from serve_app.domain.units import Instant, ModelId, RequestId, Seconds
from serve_app.engine.tokenizer import PairTokenizer
from testkit.tokenized import pairs_in


def job(
    query: str, documents: Sequence[str], truncation: Truncation = Truncation.ONLY_DOCUMENT
) -> Job:
    return Job(
        request_id=RequestId("r1"),
        model=ModelId("tiny"),
        pairs=pairs_of(query, documents),
        top_n=None,
        truncation=truncation,
        timeout_s=Seconds(1),
        deadline=Instant(1),
    )


def portion(pairs: Sequence[Pair]) -> Portion:
    return Portion(
        request_id=RequestId("r1"),
        input_ids=b"".join(pair.input_ids for pair in pairs),
        lengths=tuple(pair.tokens for pair in pairs),
        query_tokens=tuple(pair.query_tokens for pair in pairs),
    )


def reference_logits(folder: Path, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Return logits of transformers' tokenizer and padded forward, in batches of 32 in order."""
    # Bandit asks for a revision, but the folder is local.
    tokenizer = AutoTokenizer.from_pretrained(folder)  # nosec B615
    model = AutoModelForSequenceClassification.from_pretrained(folder)  # nosec B615
    model.eval()
    logits: list[float] = []
    for start in range(0, len(pairs), 32):
        queries, documents = zip(*pairs[start : start + 32], strict=True)
        inputs = tokenizer(
            list(queries), list(documents), padding=True, truncation=True, return_tensors="pt"
        )
        with torch.inference_mode():
            logits += model(**inputs).logits[:, 0].tolist()
    return logits


def tokenize_pairs(
    tokenizer: PairTokenizer,
    pairs: Sequence[tuple[str, str]],
    truncation: Truncation = Truncation.LONGEST_FIRST,
) -> list[Pair]:
    """Tokenize each pair as its own job, because all queries differ."""
    return [
        pairs_in(tokenizer.tokenize(job(query, [document], truncation)))[0]
        for query, document in pairs
    ]
