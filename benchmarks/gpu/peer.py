"""Documents per second of `CrossEncoder` in float16, with its best batch size.

It runs with tokenizing, as `predict` does, and without: the same model on batches that were
tokenized, sorted and padded before. If sentence-transformers is not installed, a loop like its own
takes the place of `predict`. The figures are from the fastest of several runs, those of the engine
are means.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from transformers import AutoTokenizer

from benchmarks.engine.texts import text_pairs
from benchmarks.gpu.subject import TYPICAL, Subject
from benchmarks.gpu.timing import settle

Pairs = Sequence[tuple[str, str]]


def run(subject: Subject, found: dict[str, Any]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(subject.folder)  # nosec B615 # a local folder
    model = subject.model().half().to(subject.device)

    def loop(pairs: Pairs, size: int) -> object:
        return forward(model, batches(tokenizer, pairs, size))

    predict = _cross_encoder(subject)
    found["with_tokenizing_by"] = "CrossEncoder.predict" if predict else "a loop over batches"
    print(f"  with tokenizing: {found['with_tokenizing_by']}")
    found["documents_per_s"] = {}
    for name in subject.texts:
        pairs = text_pairs(subject.texts[name])[: subject.sizes.peer_documents]
        rows = found["documents_per_s"][name] = []
        for size in subject.sizes.peer_batches:
            repeats = 5 if name == TYPICAL else 2
            with_s = _seconds(subject, partial(predict or loop, pairs, size), repeats)
            prepared = batches(tokenizer, pairs, size)
            apart_s = _seconds(subject, partial(forward, model, prepared), repeats)
            row = {
                "batch": size,
                "with_tokenizing": round(len(pairs) / with_s),
                "tokenizing_apart": round(len(pairs) / apart_s),
            }
            rows.append(row)
            print(f"  {name}, {row}")
    typical = found["documents_per_s"][TYPICAL]
    for way in ("with_tokenizing", "tokenizing_apart"):
        found[f"best_typical_{way}"] = max(row[way] for row in typical)


def batches(tokenizer: Any, pairs: Pairs, size: int) -> list[Any]:
    """Return padded batches of ``size`` pairs, sorted by length as `CrossEncoder` sorts them."""
    ordered = sorted(pairs, key=lambda pair: -len(pair[0]) - len(pair[1]))
    return [
        tokenizer(ordered[start : start + size], padding=True, truncation=True, return_tensors="pt")
        for start in range(0, len(ordered), size)
    ]


def forward(model: Any, prepared: Sequence[Any]) -> list[float]:
    """Return the logits of all batches, copied to the CPU at the end."""
    with torch.inference_mode():
        logits = [
            model(**{name: each.to(model.device) for name, each in batch.items()}).logits
            for batch in prepared
        ]
        return [float(logit) for logit in torch.cat(logits).float().cpu()]


def _cross_encoder(subject: Subject) -> Callable[[Pairs, int], object] | None:
    try:
        from sentence_transformers import CrossEncoder  # noqa: PLC0415 - optional
    except ImportError:
        return None
    model = CrossEncoder(
        str(subject.folder), device=str(subject.device), model_kwargs={"dtype": torch.float16}
    )

    def predict(pairs: Pairs, size: int) -> object:
        return model.predict(
            list(pairs),
            batch_size=size,
            show_progress_bar=False,
            activation_fn=torch.nn.Identity(),
        )

    return predict


def _seconds(subject: Subject, score: Callable[[], object], repeats: int) -> float:
    """Return the shortest time of ``repeats``; the first call is slower than the others."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        score()
        settle(subject.device)
        times.append(time.perf_counter() - started)
    return min(times)
