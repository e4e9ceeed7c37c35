"""A pair's logit has the same bits alone and in any batch where OpenVINO computes the model.

`python -m benchmarks.engine.batch_invariance` is a larger proof, with models of real widths.
"""

import random
from pathlib import Path

import pytest

from serve_app.domain.model import EMBEDDED
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from testkit.reference import portion, tokenize_pairs
from testkit.tiny_models import FAMILIES, build
from tests.support.varied_pairs import varied_pairs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TEXTS = varied_pairs(120, words_max=60, long_texts=3)
BATCHES = 50
BATCH_MAX = 40


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", [*FAMILIES, EMBEDDED])
def test_a_logit_has_the_same_bits_in_every_batch(
    tmp_path: Path, family: str, precision: str
) -> None:
    source = EMBEDDED if family == EMBEDDED else str(build(tmp_path, family))
    engine = load_engine(source, None, precision, EngineLimits(8_192, threads=2))
    assert engine.description.endswith("by OpenVINO")
    pairs = tokenize_pairs(load_tokenizer(source), TEXTS)
    alone = [engine.score([portion([pair])])[0][0] for pair in pairs]
    rng = random.Random(0)

    for _ in range(BATCHES):
        members = rng.sample(range(len(pairs)), rng.randint(2, BATCH_MAX))
        half = len(members) // 2
        portions = [
            portion([pairs[member] for member in part]) for part in (members[:half], members[half:])
        ]

        logits = [logit for part in engine.score(portions) for logit in part]

        assert logits == [alone[member] for member in members]
