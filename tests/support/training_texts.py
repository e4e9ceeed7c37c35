"""Small training sets in the format of `training.data`; all texts were written for tests."""

import gzip
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from testkit.judged import read_folder

JUDGED = Path(__file__).parents[1] / "quality/data"
"""The repository's own judged collection: 12 queries with 8 passages each."""

Pair = dict[str, Any]


def write_set(
    root: Path, name: str, passages: Sequence[tuple[int, str]], pairs: Sequence[Pair]
) -> None:
    folder = root / name
    folder.mkdir(parents=True)
    _write(folder / "passages.jsonl.gz", ({"id": each, "text": text} for each, text in passages))
    _write(folder / "pairs.jsonl.gz", pairs)


def write_generated(root: Path, name: str, count: int) -> None:
    """Write ``count`` questions and passages.

    A passage consists of a few sentences of the collection, its question of some of its words.
    """
    rng = random.Random(name)
    sentences = sorted(
        {text for each in read_folder(JUDGED, depth=100).judged for text in each.texts}
    )
    passages, pairs = [], []
    for place in range(count):
        text = " ".join(rng.sample(sentences, rng.randint(2, 7)))
        words = text.split()
        start = rng.randrange(len(words) - 9)
        query = "What of " + " ".join(words[start : start + rng.randint(3, 9)]) + "?"
        others = rng.sample([each for each in range(count) if each != place], 2)
        passages.append((place, text))
        pairs.append({"query": query, "positive": place, "negatives": others})
    write_set(root, name, passages, pairs)


def _write(path: Path, lines: Iterable[Any]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
