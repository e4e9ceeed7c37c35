"""The pairs of a training step, and the teacher's scores of them."""

import random
from dataclasses import dataclass
from pathlib import Path

import torch

from training.upper import Texts, late_interaction, means

NEAR = 0.6
"""Share of a step's queries, and of its documents, that are on one topic."""

CUT = 0.3
"""Share of the documents that lose their end."""

DEVIATION = 2.0
"""Standard deviation of the teacher's scores of one query's documents."""

ALIKE = 0.85
"""Cosine from which a document may be an answer too, such as the same text on another site."""


@dataclass(frozen=True)
class Options:
    """Options of a run; each field is an option of the command. See RESULTS.md."""

    steps: int = 320
    queries: int = 10
    documents: int = 32
    learning_rate: float = 2e-4
    cosine: float = 0.1
    """Weight of the cosine in the teacher, relative to late interaction."""

    length: float = 0.008
    """Factor on the logarithm of a document's tokens, which is taken from late interaction."""

    labels: float = 0.1
    """Weight of the labels in the loss."""

    matches: float = 3.0
    """Weight of the matches of single query tokens in the loss."""

    seed: int = 0
    evaluations: int = 4


@dataclass(frozen=True, slots=True)
class Material:
    """A set: query ``i`` belongs to document ``answers[i]``."""

    queries: Texts
    documents: Texts
    answers: torch.Tensor
    asked: torch.Tensor
    """Bool: whether the query is a question of the set."""

    query_means: torch.Tensor
    document_means: torch.Tensor


def read(path: Path) -> Material:
    held = torch.load(path, weights_only=True, mmap=True)
    queries, documents = Texts(*held["queries"]), Texts(*held["documents"])
    return Material(
        queries,
        documents,
        torch.tensor(held["answers"]),
        torch.tensor(held["asked"]),
        means([queries[place] for place in range(len(queries))]),
        means([documents[place] for place in range(len(documents))]),
    )


@dataclass(frozen=True, slots=True)
class Group:
    """Queries and documents of one step."""

    queries: list[torch.Tensor]
    documents: list[torch.Tensor]
    answers: torch.Tensor
    """Of each query: the place of its answer."""

    asked: torch.Tensor
    """Bool: whether the query is a question of its set."""

    alike: torch.Tensor
    """(queries, documents) bool: whether a document other than the answer may be one too."""


def drawn(sets: dict[str, Material], options: Options, step: int) -> Group:
    """Draw the group of a step. It depends only on seed and step, also after a resume.

    Most queries resemble a first one; their answers and the documents nearest to the first query
    by cosine are on its topic. The others are from any set. Some documents lose their end, so that
    short and long documents compete.
    """
    rng = random.Random(f"{options.seed} {step}")
    name = rng.choice(list(sets))
    own = sets[name]
    first = rng.randrange(len(own.queries))
    near = closest(own.query_means, own.query_means[first], 4 * options.queries)
    queries = [(name, first)]
    while len(queries) < options.queries:
        queries += another(sets, name, near, "queries", rng, queries)
    documents = list(
        dict.fromkeys((each, int(sets[each].answers[place])) for each, place in queries)
    )
    near = closest(own.document_means, own.query_means[first], 2 * options.documents)
    while len(documents) < options.documents:
        documents += another(sets, name, near, "documents", rng, documents)
    answers = [documents.index((each, int(sets[each].answers[place]))) for each, place in queries]
    vectors = torch.stack([sets[each].document_means[place] for each, place in documents])
    alike = vectors[answers] @ vectors.T > ALIKE
    for row, answer in enumerate(answers):
        each, place = documents[answer]
        alike[row] |= torch.tensor([document == (each, place + 1) for document in documents])
        alike[row, answer] = False
    return Group(
        [sets[each].queries[place] for each, place in queries],
        [shortened(sets[each].documents[place], rng) for each, place in documents],
        torch.tensor(answers),
        torch.tensor([bool(sets[each].asked[place]) for each, place in queries]),
        alike,
    )


def closest(states: torch.Tensor, to: torch.Tensor, count: int) -> list[int]:
    """Return the places of the mean states with the largest cosines."""
    found: list[int] = (states @ to).topk(min(count, len(states))).indices.tolist()
    return found


def another(
    sets: dict[str, Material],
    name: str,
    near: list[int],
    kind: str,
    rng: random.Random,
    known: list[tuple[str, int]],
) -> list[tuple[str, int]]:
    """Draw a set and a place in it: in ``near`` of the set ``name``, or anywhere.

    Returns: Nothing if it is among ``known``.
    """
    picked = name if rng.random() < NEAR else rng.choice(list(sets))
    places = near if picked == name else range(len(getattr(sets[picked], kind)))
    found = picked, rng.choice(places)
    return [] if found in known else [found]


def shortened(states: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Cut the end of some documents, but keep [SEP]."""
    if rng.random() > CUT or len(states) < 20:
        return states
    return torch.cat([states[: rng.randint(10, len(states) - 1)], states[-1:]])


@dataclass(frozen=True, slots=True)
class Teacher:
    """Late interaction plus cosine, scaled by constants, so that a pair's score depends on it only.

    More tokens offer more chances of a match, so late interaction grows with a document's length;
    a part of this is taken away.

    On average over queries, scores have `DEVIATION`, and zero is halfway between a query's own
    document and the others.
    """

    late: float
    cosine: float
    length: float
    middle: float

    def __call__(self, group: Group) -> torch.Tensor:
        """Return (queries, documents)."""
        late = late_interaction(group.queries, group.documents)
        cosines = means(group.queries) @ means(group.documents).T
        tokens = torch.tensor([len(document) for document in group.documents])
        late -= self.length * tokens.log()
        return self.late * late + self.cosine * cosines - self.middle


def teacher_of(groups: list[Group], options: Options) -> Teacher:
    """Measure the teacher's scale on some groups."""

    def shape(teacher: Teacher) -> tuple[float, float]:
        scores = [teacher(group) for group in groups]
        own = [s.gather(1, g.answers[:, None]) for s, g in zip(scores, groups, strict=True)]
        middle = (torch.cat(own).mean() + torch.cat(scores).mean()) / 2
        return float(torch.cat(scores).std(1).mean()), float(middle)

    late, cosine = (
        shape(Teacher(*each, options.length, 0.0))[0] for each in ((1.0, 0.0), (0.0, 1.0))
    )
    raw = Teacher(1 / late, options.cosine / cosine, options.length, 0.0)
    deviation, middle = shape(raw)
    factor = DEVIATION / deviation
    return Teacher(raw.late * factor, raw.cosine * factor, options.length, middle * factor)
