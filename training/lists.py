"""The lists that a training step compares: questions, each with its answer and negatives."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import bm25s
import torch
from torch.nn.functional import normalize

from training.run import Options
from training.states import Texts, TrainingSet

SHARES = {
    "squad-v1.1-train": 0.5,
    "medquad": 0.15,
    "clapnq-dev": 0.15,
    "scifact-train": 0.1,
    "pubmedqa-l": 0.1,
}
"""Each set's share of the questions of a step."""

HELD_OUT = 20
"""One in this many questions of a set is held out for development."""

MINED = 30
"""Number of best texts by the encoder's cosine that are candidates for negatives."""

ALIKE = 0.85
"""Largest cosine of a mined text with the answer. Above it, the text may be an answer too, such as
the same text on another site."""


@dataclass(frozen=True, slots=True)
class Material:
    """A training set and the negatives mined for each of its questions."""

    texts: TrainingSet
    mined: list[list[int]]
    means: tuple[torch.Tensor, torch.Tensor]
    """Normalised mean states of the queries and of the documents."""

    trained: list[int]
    """Questions that are not held out."""

    lexical: bm25s.BM25
    """BM25 index of the documents' tokens."""


Lists = Sequence[tuple[Material, int, list[int]]]
"""Questions, each with the documents to compare, its answer first."""


def means(texts: Texts) -> torch.Tensor:
    """Return (N, HIDDEN): each text's mean state, normalised."""
    return normalize(torch.stack([texts[index].float().mean(0) for index in range(len(texts))]))


def mine(texts: TrainingSet) -> Material:
    """Mine negatives by the encoder's cosine."""
    queries, documents = means(texts.queries), means(texts.documents)
    mined = []
    for query, positive in zip(queries, texts.positives, strict=True):
        best = (documents @ query).topk(min(MINED, len(documents))).indices
        alike = documents[best] @ documents[positive]
        mined.append([int(place) for place in best[alike < ALIKE]])
    trained = [index for index in range(len(texts.queries)) if index % HELD_OUT]
    return Material(texts, mined, (queries, documents), trained, lexical_index(texts.documents))


def lexical_index(documents: Texts) -> bm25s.BM25:
    """Build a BM25 index of token ids. [SEP] is in every document, but never in a query."""
    index = bm25s.BM25()
    tokens = [[*map(str, documents.tokens(place))] for place in range(len(documents))]
    index.index(tokens, show_progress=False)
    return index


def candidates(
    material: Material, index: int, negatives: int, mined: float, rng: random.Random
) -> list[int]:
    """Return documents for question ``index``, its answer first.

    Raises: ValueError: The set has too few documents.
    """
    texts = material.texts
    if len(texts.documents) <= negatives:
        raise ValueError(f"{negatives} negatives of {len(texts.documents)} documents")
    answer = texts.positives[index]
    # Some sets list a negative twice, or the answer among the negatives.
    own = [place for place in dict.fromkeys(texts.negatives[index]) if place != answer]
    chosen = [answer, *own[: negatives // 3]]
    rest = [place for place in material.mined[index] if place not in chosen]
    chosen += rng.sample(rest, min(len(rest), round(negatives * mined)))
    chosen = chosen[: negatives + 1]
    while len(chosen) < negatives + 1:
        other = rng.randrange(len(texts.documents))
        if other not in chosen:
            chosen.append(other)
    return chosen


def draw(
    sets: dict[str, Material], options: Options, step: int
) -> list[tuple[Material, int, list[int]]]:
    """Draw the lists of one step. They depend only on seed and step, also after a resume."""
    rng = random.Random(f"{options.seed} {step}")
    lists = []
    for name in rng.choices(list(SHARES), list(SHARES.values()), k=options.queries):
        material = sets[name]
        index = rng.choice(material.trained)
        listed = candidates(material, index, options.negatives, options.mined, rng)
        lists.append((material, index, listed))
    return lists
