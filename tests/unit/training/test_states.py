"""Each text keeps its own states; fake lower layers encode each token in its state."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from testkit.judged import read_folder
from tests.support.training_texts import JUDGED, Pair, write_set
from training import states
from training.data import CLS, SEP, Ids, token_ids
from training.states import TrainingSet, development, lower_states, training_set

Run = Callable[..., None]

PASSAGES = [(30 + place, f"passage {word}") for place, word in enumerate("abcdefghijkl")]
PASSAGES.reverse()  # Their ids are neither sorted nor numbered from 0.
PAIRS: list[Pair] = [
    {"query": f"{word} one", "positive": 30 + place, "negatives": [30 + (place + 5) % 12]}
    for place, word in enumerate("abcdef")
] + [{"query": f"a {word}", "positive": 30, "negatives": [41]} for word in ("two", "three", "four")]


class Lower:
    """Return each token's id, as two digits that float16 represents exactly, and its position."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, input_ids: Any, token_type_ids: Any, attention_mask: Any) -> SimpleNamespace:
        assert token_type_ids.shape == attention_mask.shape == input_ids.shape
        self.batches.append(tuple(input_ids.shape))
        places = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        encoded = torch.stack([input_ids // 256, input_ids % 256, places], 2)
        return SimpleNamespace(last_hidden_state=encoded.float())


def ids_of(encoded: torch.Tensor) -> Ids:
    return [int(high) * 256 + int(low) for high, low, _ in encoded.tolist()]


@pytest.fixture
def lower() -> Lower:
    return Lower()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    for name in states.SETS:
        write_set(tmp_path / "sets", name, PASSAGES, PAIRS)
    return tmp_path / "sets"


def test_each_side_is_extracted_in_the_requested_order(lower: Lower) -> None:
    pairs = [
        ([5_000 + place] * (1 + place % 7), [9_000 + place] * (place % 5)) for place in range(9)
    ]

    queries = lower_states(lower, pairs, 0, "queries", batch_size=4)
    documents = lower_states(lower, pairs, 1, "documents", batch_size=4)

    assert (len(queries), len(documents)) == (9, 9)
    for place, (query, document) in enumerate(pairs):
        assert ids_of(queries[place]) == [CLS, *query, SEP]
        assert ids_of(documents[place]) == [*document, SEP]
        assert documents[place][0, 2] == len(query) + 2
        assert queries.tokens(place) == [CLS, *query, SEP]
        assert documents.tokens(place) == [*document, SEP]
    assert queries.states.dtype is torch.float16
    assert len(queries.states) == queries.starts[-1] == sum(len(query) + 2 for query, _ in pairs)
    assert [rows for rows, _ in lower.batches] == [4, 4, 1] * 2


def asked(made: TrainingSet) -> dict[tuple[int, ...], int]:
    """Return each query's index by its tokens."""
    return {tuple(ids_of(made.queries[place])): place for place in range(len(made.queries))}


def test_positives_and_negatives_are_the_texts_that_the_pairs_name(
    lower: Lower, small: Path
) -> None:
    made = training_set(lower, small, states.SETS[0])

    places, texts = asked(made), dict(PASSAGES)
    for pair in PAIRS[1:6]:
        (query,) = token_ids([pair["query"]], 9)
        place = places[CLS, *query, SEP]
        (answer,) = token_ids([texts[pair["positive"]]], 9)
        (other,) = token_ids([texts[pair["negatives"][0]]], 9)
        assert ids_of(made.documents[made.positives[place]]) == [*answer, SEP]
        assert [ids_of(made.documents[each]) for each in made.negatives[place]] == [[*other, SEP]]
    assert len(made.queries) == len(made.positives) == len(made.negatives)


def test_a_passage_has_at_most_two_questions(lower: Lower, small: Path) -> None:
    made = training_set(lower, small, states.SETS[0])

    assert len(PAIRS) == 9
    assert len(asked(made)) == len(made.positives) == 5 + 2


def test_a_large_set_is_cut_to_answers_and_other_negatives_left_out(
    lower: Lower, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "DOCUMENTS_MAX", 4)

    made = training_set(lower, small, states.SETS[0])

    assert len(made.documents) == 4
    assert set(made.positives) == {0, 1, 2, 3}
    assert all(0 <= place < 4 for places in made.negatives for place in places)


def test_long_texts_are_cut_and_documents_stand_behind_queries_of_all_lengths(
    lower: Lower, tmp_path: Path
) -> None:
    long = "rain " * 300
    passages = [(place, f"{long}{place}") for place in range(40)]
    pairs = [{"query": f"{long}{each}", "positive": each, "negatives": []} for each in range(40)]
    write_set(tmp_path, "set", passages, pairs)

    made = training_set(lower, tmp_path, "set")

    assert {len(made.queries[place]) for place in range(40)} == {48 + 2}
    assert {len(made.documents[place]) for place in range(40)} == {128 + 1}
    begin = {int(made.documents[place][0, 2]) - 2 for place in range(40)}
    assert begin <= set(range(3, 21))
    assert len(begin) > 10


def test_judged_documents_follow_their_queries(lower: Lower) -> None:
    made = development(lower, JUDGED)

    documents: Iterator[int] = iter(range(len(made.documents)))
    whole = list(read_folder(JUDGED, depth=100).judged)
    for place, (each, known) in enumerate(zip(made.judged, whole, strict=True)):
        (query,) = token_ids([known.query], 48)
        assert ids_of(made.queries[place]) == [CLS, *query, SEP]
        assert (each.docids, each.grades, each.texts) == (known.docids, known.grades, ())
        for text in token_ids(known.texts, 128):
            states_of_text = made.documents[next(documents)]
            assert ids_of(states_of_text) == [*text, SEP]
            assert states_of_text[0, 2] == len(query) + 2
    assert next(documents, None) is None


def test_a_second_run_computes_only_what_is_missing(
    small: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "lower_layers", lambda _folder: Lower())
    out = tmp_path / "states"
    arguments = ("--data", small, "--judged", JUDGED, "--out", out)
    run(states.main, *arguments)
    files = {path.name for path in out.iterdir()}
    assert files == {*(f"{name}.pt" for name in states.SETS), states.DEVELOPMENT}
    whole = (out / "medquad.pt").read_bytes()
    for kept in files - {"medquad.pt"}:
        (out / kept).write_bytes(b"as it was")
    (out / "medquad.pt").unlink()

    run(states.main, *arguments)

    assert (out / "medquad.pt").read_bytes() == whole
    assert {(out / kept).read_bytes() for kept in files - {"medquad.pt"}} == {b"as it was"}


def test_states_are_loaded_as_they_were_written(
    small: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "lower_layers", lambda _folder: Lower())
    run(states.main, "--data", small, "--judged", JUDGED, "--out", tmp_path / "states")

    loaded = states.load_sets(tmp_path / "states")
    judged = states.load_development(tmp_path / "states")

    assert list(loaded) == list(states.SETS)
    made = training_set(Lower(), small, "medquad")
    found = loaded["medquad"]
    assert (found.positives, found.negatives) == (made.positives, made.negatives)
    assert found.documents.states.equal(made.documents.states)
    assert found.queries.starts.equal(made.queries.starts)
    assert found.queries.ids.equal(made.queries.ids)
    assert judged.judged == development(Lower(), JUDGED).judged


def test_an_interrupted_write_leaves_no_file_that_would_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        states.write(tmp_path / "set.pt", {"unwritable": lambda: None})

    assert not (tmp_path / "set.pt").exists()
