"""Rankings to learn from, each computed from separately encoded texts."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import normalize

from training.lists import Lists
from training.run import Options
from training.upper import logits

TOKEN_SHARPNESS = 20.0
"""Factor on the cosines in late interaction's log-sum-exp."""


def teach(teacher: Any, options: Options, lists: Lists) -> torch.Tensor:
    """Return the teachers' summed scores, (Q, 1 + negatives), with deviation 2 in each list."""
    scores = torch.zeros(len(lists), options.negatives + 1)
    for name in options.teacher.split("+"):
        scores += standard(TEACHERS[name](teacher, lists))
    return 2 * standard(scores)


def score(model: Any, lists: Lists) -> torch.Tensor:
    """Return the model's logits, (Q, 1 + negatives)."""
    queries, documents = [], []
    for material, index, places in lists:
        queries += [material.texts.queries[index]] * len(places)
        documents += [material.texts.documents[place] for place in places]
    scores: torch.Tensor = logits(model, queries, documents)
    return scores.view(len(lists), -1)


def cosines(lists: Lists) -> torch.Tensor:
    """Return the cosines of mean states, (Q, 1 + negatives)."""
    return torch.stack(
        [
            material.means[1][documents] @ material.means[0][index]
            for material, index, documents in lists
        ]
    )


def late_interaction(lists: Lists) -> torch.Tensor:
    """Return late interaction scores, (Q, 1 + negatives).

    A score is the mean, over query tokens, of the soft maximum of cosines with document tokens.
    """
    scores = []
    for material, index, documents in lists:
        # Without [CLS] and the two [SEP], which match in every document.
        query = normalize(material.texts.queries[index][1:-1].float(), dim=1)
        for place in documents:
            document = normalize(material.texts.documents[place][:-1].float(), dim=1)
            found = (TOKEN_SHARPNESS * query @ document.T).logsumexp(1) / TOKEN_SHARPNESS
            scores.append(found.mean())
    return torch.stack(scores).view(len(lists), -1)


def lexical(lists: Lists) -> torch.Tensor:
    """Return BM25 scores of token ids, (Q, 1 + negatives), with each set's own statistics."""
    scores = []
    for material, index, documents in lists:
        tokens = [*map(str, material.texts.queries.tokens(index)[1:-1])]
        found = torch.from_numpy(material.lexical.get_scores(tokens))
        scores.append(found[documents])
    return torch.stack(scores)


def standard(scores: torch.Tensor) -> torch.Tensor:
    """Standardise each row to mean 0 and deviation 1."""
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True).clamp(min=1e-6)


TEACHERS: dict[str, Callable[[Any, Lists], torch.Tensor]] = {
    "start": score,
    "cosine": lambda _, lists: cosines(lists),
    "late": lambda _, lists: late_interaction(lists),
    "bm25": lambda _, lists: lexical(lists),
}
"""Teachers by name. Each takes a model and lists, and scores separately encoded texts."""
