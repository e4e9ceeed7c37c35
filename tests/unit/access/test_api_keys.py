"""The format of a key is unambiguous, and its secret is not exposed by accident."""

import hashlib

import pytest

from serve_app.access.api_keys import ApiKey, generate, matches, parse
from serve_app.domain.units import KeyId

KEY = ApiKey(KeyId("0123456789ab"), "f" * 64)


def test_a_new_key_is_parsed_back_to_itself() -> None:
    key = generate()

    assert parse(key.reveal()) == key
    assert matches(key, key.secret_sha256)
    assert key.secret_sha256 == hashlib.sha256(key.secret.encode()).digest()


def test_no_two_keys_are_the_same() -> None:
    keys = [generate() for _ in range(100)]

    assert len({key.key_id for key in keys}) == len({key.secret for key in keys}) == 100


NOT_KEYS = {
    "empty": "",
    "only a prefix": "rk_",
    "two empty parts": "rk__",
    "no secret": "rk_0123456789ab",
    "empty secret": "rk_0123456789ab_",
    "short secret": f"rk_0123456789ab_{'f' * 63}",
    "long secret": f"rk_0123456789ab_{'f' * 65}",
    "capitals in the secret": f"rk_0123456789ab_{'F' * 64}",
    "capitals in the id": f"rk_0123456789AB_{'f' * 64}",
    "underscore in the id": f"rk_0123456789a__{'f' * 64}",
    "newline at the end": f"rk_0123456789ab_{'f' * 63}\n",
    "accents": f"rk_0123456789ab_{'é' * 64}",
    "digits of another script": f"rk_{chr(0x0966) * 12}_{'f' * 64}",
    "another prefix": f"sk_0123456789ab_{'f' * 64}",
    "space in front": f" rk_0123456789ab_{'f' * 63}",
    "huge": "rk_" + "f" * 10_000_000,
}


@pytest.mark.parametrize("case", NOT_KEYS)
def test_malformed_keys_are_not_parsed(case: str) -> None:
    assert parse(NOT_KEYS[case]) is None


def test_another_secret_does_not_match() -> None:
    assert not matches(KEY, generate().secret_sha256)
    assert not matches(KEY, bytes(32))


def test_an_unknown_key_does_not_match() -> None:
    assert not matches(KEY, None)


def test_printing_a_key_does_not_print_its_secret() -> None:
    assert KEY.secret not in repr(KEY)
    assert KEY.secret not in str(KEY)
    assert KEY.key_id in str(KEY)
