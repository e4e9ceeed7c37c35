"""Encoding word by word gives the ids that the Rust tokenizer gives for the whole text."""

import json
import threading
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from serve_app.engine import word_cache
from serve_app.engine.sources import resolve
from serve_app.engine.tokenizer import TokenizerFiles
from serve_app.engine.word_cache import WordCache, ids_as_bytes, splits_at_words
from testkit.random_texts import differing, random_texts
from testkit.tiny_models import FAMILIES

TEXTS = 3_000
NORMALIZERS = [
    dict(zip(("lowercase", "strip_accents", "clean_text"), options, strict=True))
    for options in product((True, False), (None, True, False), (True, False))
]


@pytest.fixture(scope="module")
def backend_json() -> str:
    return TokenizerFiles.read(resolve("embedded", None), "m").backend


def backend(backend_json: str, **normalizer: bool | None) -> Any:
    fields = json.loads(backend_json)
    fields["normalizer"] |= normalizer
    made = Backend.from_str(json.dumps(fields))
    made.no_truncation()
    made.no_padding()
    return made


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=str)
def test_the_ids_are_those_of_the_rust_tokenizer(
    backend_json: str, normalizer: dict[str, bool | None]
) -> None:
    tokenizer = backend(backend_json, **normalizer)

    assert splits_at_words(tokenizer)
    assert differing(tokenizer, TEXTS // len(NORMALIZERS), seed=1) == []


def test_only_tokenizers_that_split_at_words_use_the_cache(
    folders: dict[str, Path], backend_json: str
) -> None:
    uses = {
        family: splits_at_words(Backend.from_str(TokenizerFiles.read(folders[family], "m").backend))
        for family in FAMILIES
    }
    assert {family for family, used in uses.items() if used} == {"bert", "distilbert", "electra"}

    added = backend(backend_json)
    added.add_tokens([AddedToken("new york", normalized=True)])
    assert not splits_at_words(added)


def test_an_added_token_is_found_in_the_text(backend_json: str) -> None:
    tokenizer = backend(backend_json)
    tokenizer.add_tokens([AddedToken("new york", normalized=False)])

    ids = WordCache(tokenizer).encode("in new york!")

    assert ids == ids_as_bytes(tokenizer.encode("in new york!", add_special_tokens=False).ids)


def test_the_cache_is_bounded(backend_json: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_cache, "WORDS_MAX", 50)
    cache = WordCache(backend(backend_json))

    for number in range(500):
        cache.encode(f"word{number} word and {'x' * 1_000}")
        assert len(cache._known) <= 50

    assert max(map(len, cache._known)) <= word_cache.WORD_CHARACTERS_MAX


def test_threads_can_share_a_cache_that_is_cleared_all_the_time(
    backend_json: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_cache, "WORDS_MAX", 5)
    tokenizer = backend(backend_json)
    cache = WordCache(tokenizer)
    wrong: list[str] = []

    def encode(seed: int) -> None:
        for text in random_texts(300, seed):
            expected = ids_as_bytes(tokenizer.encode(text, add_special_tokens=False).ids)
            if cache.encode(text) != expected:
                wrong.append(text)

    threads = [threading.Thread(target=encode, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
