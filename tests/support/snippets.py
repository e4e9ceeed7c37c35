"""The fenced code blocks of Markdown pages."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(
    r"^(?:<!-- no-run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Snippet:
    """One block, with the reason if tests do not run it."""

    language: str
    text: str
    reason: str | None


def snippets(page: Path) -> list[Snippet]:
    """Return the blocks of ``page`` in order."""
    return [
        Snippet(found["language"], found["text"], found["reason"])
        for found in _FENCE.finditer(page.read_text(encoding="utf-8"))
    ]


def prose(page: Path) -> Iterator[str]:
    """Yield the lines of ``page`` outside of its blocks."""
    yield from _FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
