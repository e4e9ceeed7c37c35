"""The stand-in behind `embedded`: each text read apart, compared by cosine."""

import pytest

from serve_app.engine.loading import EngineLimits, load_engine, load_tokenizer
from serve_app.ports import Engine
from tests.quality.reference import portion, tokenize_pairs

LIMITS = EngineLimits(batch_tokens_max=512, forward_tokens_max=512, pair_tokens_max=64)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine("embedded", None, "float32", LIMITS)


def test_it_says_what_it_is(engine: Engine) -> None:
    assert engine.description.startswith("bi-encoder all-MiniLM-L6-v2 by cosine (stand-in")


def test_it_warms_up_and_passes_its_check(engine: Engine) -> None:
    engine.warm_up()
    engine.check()


def test_portions_of_several_queries_do_not_mix(engine: Engine) -> None:
    tokenizer = load_tokenizer("embedded")
    pairs = tokenize_pairs(
        tokenizer, [("how do planes fly", "wings give lift"), ("bread recipe", "wings give lift")]
    )

    together = engine.score([portion(pairs[:1]), portion(pairs[1:])])
    alone = [engine.score([portion([pair])])[0] for pair in pairs]

    assert together[0] == pytest.approx(alone[0], abs=1e-4)
    assert together[1] == pytest.approx(alone[1], abs=1e-4)
    assert together[0][0] > together[1][0] + 1
