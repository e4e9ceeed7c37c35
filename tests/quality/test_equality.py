"""Models of real size score like the reference implementation, in any batch.

The first model is all-MiniLM-L6-v2's encoder as a `BertForSequenceClassification` with a random,
seeded head: six layers, 512 positions, real weights. Its logits do not rank, but have the rounding
errors of a real model. The second is the embedded model, the third its encoder with an adapter of
another depth.
"""

from pathlib import Path

import pytest
import torch
from sentence_transformers import CrossEncoder as Reference
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from serve_app.domain.model import EMBEDDED
from serve_app.domain.tokenized import Pair
from serve_app.engine.export import export_embedded
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from serve_app.engine.sources import resolve
from testkit.reference import portion, reference_logits, tokenize_pairs
from tests.support.synthetic_adapter import write_synthetic
from tests.support.varied_pairs import varied_pairs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LIMITS = EngineLimits(batch_tokens_max=8_192)

FLOAT32_TOLERANCE = 1e-4
BFLOAT16_TOLERANCE = 0.06
"""Logits of this model have a range of about 4; 8 bits of mantissa in six layers cost 0.04."""

FLOAT16_TOLERANCE = 0.01
"""float16 has three more bits of mantissa than bfloat16, hence an eighth of its error."""

PAIRS = varied_pairs(500, words_max=30, long_texts=3)
LONGEST = slice(60, 63)
"""Position of the truncated texts in `varied_pairs`."""

SOME = PAIRS[:150]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder = resolve(EMBEDDED, None)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=1)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    path = tmp_path_factory.mktemp("real")
    model.save_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pairs(folder: Path) -> list[Pair]:
    return tokenize_pairs(load_tokenizer(str(folder)), PAIRS)


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[float]:
    return reference_logits(folder, PAIRS)


@pytest.fixture(scope="module")
def exact(folder: Path, pairs: list[Pair]) -> list[float]:
    return load_engine(str(folder), None, "float32", LIMITS).score([portion(pairs)])[0]


def test_float32_equals_transformers(exact: list[float], expected: list[float]) -> None:
    assert exact == pytest.approx(expected, abs=FLOAT32_TOLERANCE)
    assert max(expected) - min(expected) > 1


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("bfloat16", BFLOAT16_TOLERANCE), ("float16", FLOAT16_TOLERANCE)],
)
def test_reduced_precisions_are_close_and_rank_the_first_ten_alike(
    folder: Path, pairs: list[Pair], exact: list[float], precision: str, tolerance: float
) -> None:
    """Pairs count as tied if their float32 logits differ by less than twice the tolerance."""
    engine = load_engine(str(folder), None, precision, LIMITS)

    short = engine.score([portion(pairs)])[0]

    assert short == pytest.approx(exact, abs=tolerance)
    for start in range(0, len(pairs), 50):
        order = sorted(range(start, start + 50), key=lambda place: -exact[place])
        for rank, better in enumerate(order[:10]):
            for worse in order[rank + 1 :]:
                tied = exact[better] - exact[worse] < 2 * tolerance
                assert tied or short[better] > short[worse]


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [
        ("float32", FLOAT32_TOLERANCE),
        ("bfloat16", BFLOAT16_TOLERANCE),
        ("float16", FLOAT16_TOLERANCE),
    ],
)
def test_a_pair_scores_the_same_alone_and_in_any_batch(
    folder: Path, pairs: list[Pair], precision: str, tolerance: float
) -> None:
    engine = load_engine(str(folder), None, precision, LIMITS)
    few = [*pairs[:40:4], *pairs[LONGEST][:1], *pairs[100:150:10]]

    together = engine.score([portion(few[:5]), portion(few[5:])])
    backwards = engine.score([portion(few[::-1])])[0][::-1]
    alone = [engine.score([portion([pair])])[0][0] for pair in few]

    assert [*together[0], *together[1]] == pytest.approx(alone, abs=tolerance)
    assert backwards == pytest.approx(alone, abs=tolerance)


def test_sentence_transformers_gives_the_same_scores(folder: Path, exact: list[float]) -> None:
    reference = Reference(str(folder), device="cpu", activation_fn=torch.nn.Identity())

    scores = reference.predict(PAIRS[100:250], show_progress_bar=False)

    assert exact[100:250] == pytest.approx(scores.tolist(), abs=FLOAT32_TOLERANCE)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model, as transformers saves it."""
    folder = tmp_path_factory.mktemp("exported")
    export_embedded(folder)
    return folder


@pytest.fixture(scope="module")
def embedded_logits() -> list[float]:
    return score(EMBEDDED, SOME)


def score(source: str, texts: list[tuple[str, str]]) -> list[float]:
    """Score as the service does, with the gateway's tokenizer and the scorer's engine."""
    pairs = tokenize_pairs(load_tokenizer(source), texts)
    return load_engine(source, None, "float32", LIMITS).score([portion(pairs)])[0]


def test_embedded_equals_transformers(exported: Path, embedded_logits: list[float]) -> None:
    expected = reference_logits(exported, SOME)

    assert embedded_logits == pytest.approx(expected, abs=FLOAT32_TOLERANCE)
    assert max(expected) - min(expected) > 1


def test_embedded_equals_sentence_transformers_which_applies_no_sigmoid_to_it(
    exported: Path, embedded_logits: list[float]
) -> None:
    reference = Reference(str(exported), device="cpu")

    scores = reference.predict(SOME, show_progress_bar=False)

    assert reference.max_seq_length == 512
    assert embedded_logits == pytest.approx(scores.tolist(), abs=FLOAT32_TOLERANCE)


def test_embedded_is_the_same_when_served_from_its_export(
    exported: Path, embedded_logits: list[float]
) -> None:
    assert score(str(exported), SOME) == pytest.approx(embedded_logits, abs=FLOAT32_TOLERANCE)


def test_an_adapter_of_another_depth_equals_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = write_synthetic(resolve(EMBEDDED, None), tmp_path, layers=7)
    monkeypatch.setattr("serve_app.engine.embedded.model.ADAPTER", tmp_path / "adapter.safetensors")

    logits = score(EMBEDDED, SOME)

    expected = reference_logits(reference, SOME)
    assert logits == pytest.approx(expected, abs=FLOAT32_TOLERANCE)
    assert max(expected) - min(expected) > 1
