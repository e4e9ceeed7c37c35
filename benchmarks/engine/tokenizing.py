"""What does tokenizing cost, and does the word cache give the ids of the Rust tokenizer?

    python -m benchmarks.engine.tokenizing --data FOLDER --texts 1000000 \\
        --json benchmarks/results/tokenizing.json

The CPU time per passage of a judged collection, in one thread: by the Rust tokenizer, by a new word
cache on passages that it has not seen, and on the same passages again. Then random texts of all
kinds are compared.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from benchmarks.machine import Machine, machine
from serve_app.domain.model import EMBEDDED, INPUT_ID_BYTES
from serve_app.engine.sources import resolve
from serve_app.engine.tokenizer import TokenizerFiles, limit_threads
from serve_app.engine.word_cache import WordCache, ids_as_bytes
from testkit.judged import read_folder
from testkit.random_texts import differing

DEPTH = 100
BATCH = 100
TURNS = 3


@dataclass(frozen=True, slots=True)
class Result:
    """CPU times per passage, in microseconds: the least of `TURNS` turns."""

    question: str
    date: str
    machine: Machine
    collection: str
    passages: int
    tokens_per_passage: float
    rust_us: float
    new_passages_us: float
    """The second half of the passages, after the cache has seen the first half."""

    known_passages_us: float
    random_texts: int
    different_ids: int


def cpu_us(encode: Callable[[], object], passages: int) -> float:
    started = time.process_time()
    encode()
    return 1e6 * (time.process_time() - started) / passages


def encode_rust(backend: Any, texts: Sequence[str]) -> list[bytes]:
    return [
        ids_as_bytes(encoding.ids)
        for start in range(0, len(texts), BATCH)
        for encoding in backend.encode_batch_fast(
            texts[start : start + BATCH], add_special_tokens=False
        )
    ]


def encode_words(cache: WordCache, texts: Sequence[str]) -> list[bytes]:
    return list(map(cache.encode, texts))


def measure(backend: Any, folder: Path, random_texts: int) -> Result:
    collection = read_folder(folder, DEPTH)
    texts = list(dict.fromkeys(text for judged in collection.judged for text in judged.texts))
    seen, new = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    rust, first, again = [], [], []
    for _ in range(TURNS):
        cache = WordCache(backend)
        encode_words(cache, seen)
        rust.append(cpu_us(partial(encode_rust, backend, new), len(new)))
        first.append(cpu_us(partial(encode_words, cache, new), len(new)))
        again.append(cpu_us(partial(encode_words, cache, new), len(new)))
    ids = encode_rust(backend, new)
    assert ids == encode_words(cache, new)
    return Result(
        question="What does tokenizing cost, and are the ids those of the Rust tokenizer?",
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        collection=collection.name,
        passages=len(texts),
        tokens_per_passage=round(sum(map(len, ids)) / INPUT_ID_BYTES / len(ids), 1),
        rust_us=round(min(rust), 1),
        new_passages_us=round(min(first), 1),
        known_passages_us=round(min(again), 1),
        random_texts=random_texts,
        different_ids=len(differing(backend, random_texts, seed=7)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time and equality of tokenizing.")
    parser.add_argument("--data", type=Path, required=True, help="folder of a judged collection")
    parser.add_argument("--texts", type=int, default=100_000, help="random texts to compare")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    limit_threads(1)
    backend = Backend.from_str(TokenizerFiles.read(resolve(EMBEDDED, None), EMBEDDED).backend)
    backend.no_truncation()
    backend.no_padding()
    result = measure(backend, chosen.data, chosen.texts)
    text = json.dumps(asdict(result), indent=2)
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(text + os.linesep, encoding="utf-8")


if __name__ == "__main__":
    main()
