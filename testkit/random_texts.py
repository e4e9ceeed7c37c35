"""Random texts and their ids, to compare the word cache with the Rust tokenizer."""

import random
from collections.abc import Iterator
from typing import Any

from serve_app.engine.word_cache import WordCache, ids_as_bytes
from testkit.tiny_models import CJK_AND_EMOJI, WORDS

PIECES: tuple[str, ...] = (
    *WORDS,
    *CJK_AND_EMOJI,
    *" \t\n\r.,!?-'\"()[]",
    *("[SEP]", "[sep]", "\u0301", "e\u0301", "\u0338", "\x00", "\x0b", "\x0c", "\x1c", "\x85"),
    *("\u200b", "\u200d", "\u2028", "\ufeff", "\ufffd", "\u2019", "\u201c", "\u2014", "x" * 150),
    *("İ", "ß", "Σας", "ΟΔΟΣ", "ǅ", "ﬁne", "½", "हिन्दी", "한국어", "ไทย", "مرحبا", "👩‍🚀"),
)


def random_texts(count: int, seed: int) -> Iterator[str]:
    """Yield texts of words, signs and characters of all kinds, with and without blanks."""
    rng = random.Random(seed)

    def piece() -> str:
        kind = rng.random()
        if kind < 0.5:
            return rng.choice(PIECES)
        if kind < 0.7:
            return chr(rng.randrange(0x80))
        if kind < 0.8:
            return "".join(rng.choices("abcdefghijklmnopqrstuvwxyzAE0123", k=rng.randint(1, 9)))
        first, last = rng.choice(
            [(0x80, 0x250), (0x250, 0x3000), (0x3000, 0xD800), (0xE000, 0x110000)]
        )
        return chr(rng.randrange(first, last))

    for _ in range(count):
        yield "".join(piece() for _ in range(rng.randint(1, 14)))


def differing(backend: Any, count: int, seed: int) -> list[str]:
    """Return the random texts for which the cache gives other ids than ``backend``."""
    cache = WordCache(backend)
    return [
        text
        for text in random_texts(count, seed)
        if cache.encode(text) != ids_as_bytes(backend.encode(text, add_special_tokens=False).ids)
    ]
