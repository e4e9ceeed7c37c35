"""Compute the training texts' states after the constructed model's first six layers, once.

    python -m training.states --model var/training/start --data FOLDER --out var/training/states

Below layer 7, query and document do not see each other, and [CLS] sees only itself. So a text has
the same states in every pair, except that a document's positions depend on its query's length. Each
document is computed after one random query length. Training of the upper layers then needs no pass
through the lower ones.

Existing files are skipped, so a stopped run continues with the next set.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from transformers import AutoModelForSequenceClassification

from testkit.judged import JudgedQuery, read_folder
from training.data import Ids, as_searched, collate, read_set, token_ids

SETS = ("clapnq-dev", "scifact-train", "pubmedqa-l", "medquad", "squad-v1.1-train")
DEVELOPMENT = "development.pt"
LOWER = 6
QUERY_TOKENS_MAX, DOCUMENT_TOKENS_MAX = 48, 128
DOCUMENTS_MAX = 4_000
"""Most documents of one set; SQuAD and MedQuAD have more."""

QUERIES_PER_DOCUMENT_MAX = 2
"""Most queries with the same answer; SQuAD has five questions per paragraph."""


@dataclass(frozen=True, slots=True)
class Texts:
    """States of many texts, concatenated."""

    states: torch.Tensor
    """(T, HIDDEN) float16: [CLS], query and [SEP] of a query; document and [SEP] of a document."""

    starts: torch.Tensor
    """(N + 1,) int64: text ``i`` has rows ``starts[i]`` to ``starts[i + 1]``."""

    ids: torch.Tensor
    """(T,) int32: the token of each row."""

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.states[self.starts[index] : self.starts[index + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def tokens(self, index: int) -> Ids:
        """Return the token ids of text ``index``, including special tokens."""
        ids: Ids = self.ids[self.starts[index] : self.starts[index + 1]].tolist()
        return ids


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """One set: query ``i`` has the answer ``positives[i]`` and the set's ``negatives[i]``."""

    queries: Texts
    documents: Texts
    positives: list[int]
    negatives: list[list[int]]


@dataclass(frozen=True, slots=True)
class Development:
    """A judged collection. ``documents`` holds the candidates of query 0, then of query 1, ..."""

    queries: Texts
    documents: Texts
    judged: list[JudgedQuery]
    """The queries with docids and grades, but without texts."""


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def lower_states(
    lower: Any, pairs: Sequence[tuple[Ids, Ids]], segment: int, name: str, batch_size: int = 32
) -> Texts:
    """Return states of one side of each pair.

    Args:
        segment: 0 for the query with [CLS], 1 for the document.
    """
    order = sorted(range(len(pairs)), key=lambda index: -sum(map(len, pairs[index])))
    found: list[torch.Tensor] = [torch.empty(0)] * len(pairs)
    ids = list(found)
    for start in track(range(0, len(order), batch_size), name):
        chosen = order[start : start + batch_size]
        batch = collate([pairs[index] for index in chosen])
        hidden = lower(**batch.inputs).last_hidden_state.half()
        sides = batch.real & (batch.token_types == segment)
        for index, row, tokens, side in zip(chosen, hidden, batch.input_ids, sides, strict=True):
            found[index], ids[index] = row[side], tokens[side].int()
    lengths = torch.tensor([0, *(len(each) for each in found)])
    return Texts(torch.cat(found), lengths.cumsum(0), torch.cat(ids))


def lower_layers(folder: Path) -> Any:
    """Return the model in ``folder`` without the layers after the sixth."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    model.bert.encoder.layer = model.bert.encoder.layer[:LOWER]
    return model.bert


def training_set(lower: Any, root: Path, name: str) -> TrainingSet:
    """Compute the set ``name``; of a large set, a seeded sample."""
    rng = random.Random(0)
    passages, pairs = read_set(root, name)
    wanted = sorted({pair["positive"] for pair in pairs})
    kept = set(rng.sample(wanted, min(DOCUMENTS_MAX, len(wanted))))
    asked: dict[int, int] = {}
    chosen = []
    rng.shuffle(pairs)
    for pair in pairs:
        positive = pair["positive"]
        asked[positive] = asked.get(positive, 0) + 1
        if positive in kept and asked[positive] <= QUERIES_PER_DOCUMENT_MAX:
            chosen.append(pair)
    if len(wanted) <= DOCUMENTS_MAX:
        kept |= {negative for pair in chosen for negative in pair["negatives"]}
    place = {identity: index for index, identity in enumerate(sorted(kept))}
    queries = token_ids([as_searched(pair["query"], rng) for pair in chosen], QUERY_TOKENS_MAX)
    documents = token_ids([passages[identity] for identity in place], DOCUMENT_TOKENS_MAX)
    behind: list[Ids] = [[1] * rng.randint(3, 20) for _ in documents]
    return TrainingSet(
        queries=lower_states(lower, [(query, []) for query in queries], 0, f"{name} queries"),
        documents=lower_states(
            lower, list(zip(behind, documents, strict=True)), 1, f"{name} documents"
        ),
        positives=[place[pair["positive"]] for pair in chosen],
        negatives=[
            [place[negative] for negative in pair["negatives"] if negative in place]
            for pair in chosen
        ],
    )


def development(lower: Any, folder: Path) -> Development:
    """Compute the judged collection in ``folder``, each document after its own query."""
    judged = list(read_folder(folder, depth=100).judged)
    queries = token_ids([each.query for each in judged], QUERY_TOKENS_MAX)
    pairs = [
        (query, document)
        for each, query in zip(judged, queries, strict=True)
        for document in token_ids(each.texts, DOCUMENT_TOKENS_MAX)
    ]
    return Development(
        queries=lower_states(lower, [(query, []) for query in queries], 0, "judged queries"),
        documents=lower_states(lower, pairs, 1, "judged documents"),
        judged=[replace(each, texts=()) for each in judged],
    )


def load_sets(folder: Path) -> dict[str, TrainingSet]:
    loaded = {}
    for name in SETS:
        found = torch.load(folder / f"{name}.pt", weights_only=True)
        loaded[name] = TrainingSet(
            queries=Texts(*found["queries"]),
            documents=Texts(*found["documents"]),
            positives=found["positives"],
            negatives=found["negatives"],
        )
    return loaded


def load_development(folder: Path) -> Development:
    found = torch.load(folder / DEVELOPMENT, weights_only=True)
    judged = [JudgedQuery(*each) for each in found["judged"]]
    return Development(Texts(*found["queries"]), Texts(*found["documents"]), judged)


def held(texts: Texts) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the tensors of ``texts`` that a file stores."""
    return texts.states, texts.starts, texts.ids


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the file atomically: a crash leaves no partial file at ``path``."""
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute the lower layers' states, once.")
    parser.add_argument("--model", type=Path, default=Path("var/training/start"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train"))
    parser.add_argument(
        "--judged", type=Path, default=Path("../shared/data/test/trec-dl20-passage")
    )
    parser.add_argument("--out", type=Path, default=Path("var/training/states"))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    lower = lower_layers(chosen.model)
    for name in SETS:
        path = chosen.out / f"{name}.pt"
        if path.exists():
            continue
        made = training_set(lower, chosen.data, name)
        write(
            path,
            {
                "queries": held(made.queries),
                "documents": held(made.documents),
                "positives": made.positives,
                "negatives": made.negatives,
            },
        )
    path = chosen.out / DEVELOPMENT
    if not path.exists():
        judged = development(lower, chosen.judged)
        write(
            path,
            {
                "queries": held(judged.queries),
                "documents": held(judged.documents),
                "judged": [
                    (each.qid, each.query, each.docids, each.texts, each.grades)
                    for each in judged.judged
                ],
            },
        )


if __name__ == "__main__":
    main()
