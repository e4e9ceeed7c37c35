"""Tenant names are stored in a normalized form, and no two of them look alike."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, insert

from serve_app.ledger.accounts import tenant_accounts
from serve_app.ledger.accounts.tenant_accounts import AccountConflict, AccountProblem
from serve_app.ledger.accounts.tenant_names import is_fit, lookalike_keys, normalized, skeleton
from serve_app.ledger.db.tables import tenants
from tests.support.ledger import AUDIT

# ruff: noqa: RUF001 - these tests need look-alike characters


def look_alike(one: str, other: str) -> bool:
    return not lookalike_keys(normalized(one)).isdisjoint(lookalike_keys(normalized(other)))


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("acme", "acme"),
        ("  acme \u00a0corp\u3000 ", "acme corp"),
        ("ａｃｍｅ", "acme"),
        ("ﬁne", "fine"),
        ("Mu\u0308ller", "Müller"),
        ("北京", "北京"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_names_are_normalized(given: str, stored: str) -> None:
    assert normalized(given) == stored
    assert normalized(stored) == stored


@given(st.text())
def test_normalization_is_idempotent(name: str) -> None:
    assert normalized(normalized(name)) == normalized(name)


@pytest.mark.parametrize(
    "character",
    [
        "\0",
        "\t",
        "\n",
        "\x7f",
        "\x85",
        "\u00ad",  # soft hyphen
        "\u034f",  # combining grapheme joiner
        "\u115f",  # Hangul filler
        "\u200b",  # zero-width space
        "\u200d",  # zero-width joiner
        "\u200e",  # left-to-right mark
        "\u2028",  # line separator
        "\u202e",  # right-to-left override
        "\u2800",  # blank Braille pattern
        "\u3164",  # Hangul filler
        "\ufe0f",  # variation selector
        "\ufeff",  # byte order mark
        "\ue000",  # private use
        "\u0378",  # unassigned
        "\ud800",  # half a surrogate pair
        "\U000e0100",  # variation selector
    ],
)
def test_invisible_characters_are_not_allowed(character: str) -> None:
    assert is_fit(normalized("acme"))
    for name in (f"ac{character}me", f"acme{character}", character):
        assert not is_fit(normalized(name))


@pytest.mark.parametrize("name", ["", " ", "\u3000", "x" * 129, "ﷺ" * 8])
def test_a_name_has_1_to_128_characters_once_it_is_normalized(name: str) -> None:
    assert not is_fit(normalized(name))
    assert is_fit(normalized("x" * 128))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("acme", "ACME"),
        ("acme", "аcmе"),  # two Cyrillic letters
        ("scope", "ѕсоре"),  # Cyrillic
        ("ACME", "АСМЕ"),  # Cyrillic
        ("polo", "pοlο"),  # Greek omicron
        ("acme", "ａｃｍｅ"),
        ("corn", "com"),
        ("modern", "modem"),
        ("Bo0k", "BoOk"),
        ("b00k", "book"),
        ("tenant-1", "tenant-l"),
        ("tenant-1", "tenant-I"),
        ("PaypaI", "paypal"),
        ("INTEL", "intel"),
        ("INTEL", "lntel"),
        ("a|b", "aIb"),
        ("straße", "STRASSE"),
        ("Müller", "Mu\u0308ller"),
        ("a b", "a\u2003b"),
    ],
)
def test_names_that_look_alike(one: str, other: str) -> None:
    assert look_alike(one, other)
    assert look_alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("acme", "acne"),
        ("mail", "mall"),
        ("tenant-1", "tenant-2"),
        ("tenant-10", "tenant-11"),
        ("Müller", "Muller"),
        ("北京", "北海"),
        ("a b", "ab"),
        ("intel", "lntel"),
    ],
)
def test_names_that_do_not_look_alike(one: str, other: str) -> None:
    assert not look_alike(one, other)


@given(st.text())
def test_a_skeleton_is_its_own_skeleton(text: str) -> None:
    assert skeleton(skeleton(text)) == skeleton(text)
    assert unicodedata.is_normalized("NFD", skeleton(text))


@given(st.text(min_size=1))
def test_a_name_looks_like_itself_in_either_case(name: str) -> None:
    assert look_alike(name, name)
    assert look_alike(name.casefold(), name)


def test_a_tenant_gets_the_normalized_name_and_is_found_by_every_form(engine: Engine) -> None:
    with engine.begin() as connection:
        made = tenant_accounts.create_tenant(connection, " Ａｃｍｅ \u00a0Corp ", AUDIT)

        assert made.name == "Acme Corp"
        for name in ("Acme Corp", "Ａｃｍｅ  Corp", " Acme\u2003Corp", made.id):
            assert tenant_accounts.find_tenant(connection, name) == made


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acme", "a tenant named 'acme' already exists"),
        (" ａｃｍｅ", "a tenant named 'acme' already exists"),
        ("ACME", "the name 'ACME' looks like that of the tenant 'acme'"),
        ("аcme", "the name 'аcme' looks like that of the tenant 'acme'"),
    ],
)
def test_a_look_alike_is_refused_and_leaves_the_transaction_usable(
    engine: Engine, name: str, message: str
) -> None:
    with engine.begin() as connection:
        first = tenant_accounts.create_tenant(connection, "acme", AUDIT)
        with pytest.raises(AccountConflict, match=message):
            tenant_accounts.create_tenant(connection, name, AUDIT)
        second = tenant_accounts.create_tenant(connection, "bolt", AUDIT)

        assert tenant_accounts.list_tenants(connection) == [first, second]


def test_an_invalid_name_is_refused_with_the_rule(engine: Engine) -> None:
    with (
        pytest.raises(AccountProblem, match="name must have 1 to 128 characters"),
        engine.begin() as connection,
    ):
        tenant_accounts.create_tenant(connection, "ac\u200bme", AUDIT)


def test_names_stored_by_earlier_versions_stay_valid(engine: Engine) -> None:
    older = ("Ａｃｍｅ", "acme", "Acme\u200b", "two  words", "two words")
    with engine.begin() as connection:
        rows = [
            {"id": f"tn_{number}", "name": name, "available": 0, "created_at": 0}
            for number, name in enumerate(older)
        ]
        connection.execute(insert(tenants), rows)

        for number, name in enumerate(older):
            assert tenant_accounts.find_tenant(connection, name).id == f"tn_{number}"
        with pytest.raises(AccountConflict):
            tenant_accounts.create_tenant(connection, "Two Words", AUDIT)
        assert tenant_accounts.create_tenant(connection, "three words", AUDIT).name == "three words"
