"""Checks of a body that precede those of its wire format."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.errors import InvalidRequest, TooLarge
from serve_app.domain.units import Seconds
from serve_app.protocols.json_body import DEFAULT_LIMITS, FAST_CHARACTERS_MAX, read_object
from serve_app.protocols.limits import Limits

SIZE = 10_000_000

COSTLY = {
    "numbers": b"[" + b"1," * (SIZE // 2) + b"1]",
    "empty lists": b"[" + b"[]," * (SIZE // 3) + b"[]]",
    "nested lists": b"[" * SIZE,
    "empty strings": b"[" + b'"",' * (SIZE // 3) + b'""]',
    "small objects": b"[" + b'{"a":1},' * (SIZE // 8) + b"{}]",
    "names": b"{" + b",".join(b'"%x":1' % index for index in range(SIZE // 10)) + b"}",
    "white space": b" " * SIZE + b"1",
}


@pytest.mark.parametrize("ignored", COSTLY.values(), ids=list(COSTLY))
def test_a_body_with_too_much_structure_is_refused(ignored: bytes) -> None:
    with pytest.raises(TooLarge) as refused:
        read_object(b'{"query":"q","documents":["d"],"ignored":' + ignored + b"}")

    assert refused.value.where == "body"
    assert refused.value.limit in (
        DEFAULT_LIMITS.strings_max,
        DEFAULT_LIMITS.outside_strings_characters_max,
    )


def test_a_body_with_too_many_escapes_is_refused() -> None:
    with pytest.raises(TooLarge) as refused:
        read_object(b'{"query":"q","documents":["' + b"x\\n" * (SIZE // 3) + b'"]}')

    assert (refused.value.where, refused.value.limit) == ("body", DEFAULT_LIMITS.escapes_max)


def test_ten_megabytes_of_escaped_characters_are_read() -> None:
    text = "中" * (SIZE // 6)
    body = {"query": "q", "documents": [text]}

    assert read_object(json.dumps(body, ensure_ascii=True).encode()) == body


def test_a_thousand_indented_documents_of_ten_fields_are_read() -> None:
    document = {f"a field {index}": "x" * 50 for index in range(10)}
    body = {"query": "q", "documents": [document] * 1_000}

    assert read_object(json.dumps(body, indent=4).encode()) == body


def limits(documents: int, body_bytes: int) -> Limits:
    return Limits(body_bytes, documents, 100, Seconds(30), Seconds(60), Seconds(10))


def test_the_limits_grow_with_the_documents_and_bytes_of_a_request() -> None:
    document = {f"a field {index}": "x" * 50 for index in range(10)}
    body = {"query": "q", "documents": [document] * 10_000}
    content = json.dumps(body).encode()

    with pytest.raises(TooLarge):
        read_object(content)
    assert read_object(content, limits(10_000, 33_554_432).json) == body

    escaped = json.dumps({"documents": ["中" * 3_000_000]}).encode()
    with pytest.raises(TooLarge):
        read_object(escaped)
    read_object(escaped, limits(1_000, 33_554_432).json)


@pytest.mark.parametrize(("documents", "body_bytes"), [(1, 1_000), (1_000, 10_000_000)])
def test_the_limits_are_the_default_ones_up_to_the_default_settings(
    documents: int, body_bytes: int
) -> None:
    assert limits(documents, body_bytes).json == DEFAULT_LIMITS


@pytest.mark.parametrize(
    "text", ["x" * SIZE, "\n" * 1_000_000, '"' * 1_000_000, "中" * 3_000_000, "x\ty" * 1_000_000]
)
def test_text_does_not_count_as_structure(text: str) -> None:
    body = {"query": "q", "documents": [text]}

    assert read_object(json.dumps(body, ensure_ascii=False).encode()) == body


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.slow  # Seconds of generated examples.
@given(st.dictionaries(st.text(), json_values), st.booleans())
def test_any_object_within_the_bounds_is_read_unchanged(
    body: dict[str, object], ensure_ascii: bool
) -> None:
    text = json.dumps(body, ensure_ascii=ensure_ascii, allow_nan=False)

    assert read_object(text.encode("utf-8", "surrogatepass")) == body


@pytest.mark.parametrize(
    "inner",
    [b'{"a": 1, "a": 2}', b"NaN", b'{"a" 1}', b"[1,]", b"1" * 5_000, b"[" * 20_000, b'"\\x"', b""],
)
def test_long_and_short_texts_have_the_same_faults(inner: bytes) -> None:
    """Long texts have another parser."""
    short = b'{"documents": ["d"], "field": ' + inner + b"}"
    long = short.replace(b'"d"', b'"' + b"d" * FAST_CHARACTERS_MAX + b'"')

    problems = []
    for body in (short, long):
        with pytest.raises(InvalidRequest) as refusal:
            read_object(body)
        problems.append(refusal.value.problem.partition(" at line")[0])

    assert problems[0] == problems[1]


@pytest.mark.slow  # Seconds of generated examples.
@given(st.dictionaries(st.text(), json_values))
def test_long_texts_are_read_unchanged(body: dict[str, object]) -> None:
    body |= {"long": "x" * FAST_CHARACTERS_MAX}

    assert read_object(json.dumps(body).encode()) == body
