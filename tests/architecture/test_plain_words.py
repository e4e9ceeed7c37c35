"""Docstrings, comments, messages and documents avoid words that obscure their meaning.

Run ``python -m tests.architecture.test_plain_words`` to print the current content of ``EXCUSED``,
or with names of files to print each use in them.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON_FOLDERS = (
    *("benchmarks", "cluster", "conformance", "docs", "examples", "loadtests"),
    *("serve_app", "testkit", "tests", "training"),
)
DOCUMENTS = ("*.md", "*.yaml", "*.yml", "ray.env")

BANNED = (
    *("told", "whoever", "for so long", "wavers", "brim", "let pass"),
    *("nobody", "somebody", "everybody", "beside", "pretended", "mended"),
    "goes on",  # Write "continues".
    *("card", "cards"),  # Write "GPU".
)
ALLOWED = (
    "model card",
    "model cards",
    "no tenant 'nobody'",
)
EXCUSED: dict[str, int] = {}
"""Number of banned words in a file, which may only shrink. All other files have none."""

# A word in a name or path with hyphens is not prose.
_BANNED = re.compile(rf"(?<![\w-])(?:{'|'.join(BANNED)})(?![\w-])", re.IGNORECASE)
_ALLOWED = re.compile("|".join(rf"(?<!\w){phrase}(?!\w)" for phrase in ALLOWED), re.IGNORECASE)
_CODE = re.compile(r"(`+)[^`]+\1")
_COMMENT_MARK = re.compile(r"^\s*#", re.MULTILINE)


def files() -> list[str]:
    found = [path for pattern in DOCUMENTS for path in ROOT.glob(pattern)]
    for folder in PYTHON_FOLDERS:
        found += [path for pattern in DOCUMENTS for path in (ROOT / folder).rglob(pattern)]
        found += (ROOT / folder).rglob("*.py")
    names = {str(path.relative_to(ROOT)) for path in found if path != Path(__file__)}
    return sorted(names)


def uses(name: str) -> list[str]:
    """Return the banned words in the prose of a file, in order of appearance."""
    text = (ROOT / name).read_text(encoding="utf-8")
    parts = _python_prose(text) if name.endswith(".py") else [_COMMENT_MARK.sub("", text)]
    return [word for part in parts for word in _banned(part)]


def _python_prose(source: str) -> Iterator[str]:
    """Yield all comments as one text, and every string of at least two words."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    yield _COMMENT_MARK.sub("", "\n".join(comments))
    for node in ast.walk(ast.parse(source)):
        # A string of one word is a name or test data.
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value


def _banned(text: str) -> list[str]:
    prose = " ".join(_CODE.sub(" ` ", text).split())
    return [match.group() for match in _BANNED.finditer(_ALLOWED.sub(" ` ", prose))]


def test_a_file_has_no_more_banned_words_than_excused() -> None:
    found = {name: uses(name) for name in files()}

    assert not {name: words for name, words in found.items() if len(words) > EXCUSED.get(name, 0)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Nobody is told.", ["Nobody", "told"]),
        ("It goes\non the cards.", ["goes on", "cards"]),
        ("The model card. Besides, `told` and ``beside``.", []),
        ("See 0013-a-card-gets-its-batch.md and card_of.", []),
    ],
)
def test_only_whole_words_outside_of_code_are_banned(text: str, words: list[str]) -> None:
    assert _banned(text) == words


def test_names_in_python_are_not_checked() -> None:
    source = 'told = "told"  # told\nf(f"nobody {told} is here")\n'

    assert [word for part in _python_prose(source) for word in _banned(part)] == ["told", "nobody"]


def _main(names: list[str]) -> None:
    if names:
        sys.stdout.writelines(f"{name}: {', '.join(uses(name))}\n" for name in names)
        return
    counts = {name: len(uses(name)) for name in files()}
    sys.stdout.writelines(f'    "{name}": {count},\n' for name, count in counts.items() if count)


if __name__ == "__main__":
    _main(sys.argv[1:])
