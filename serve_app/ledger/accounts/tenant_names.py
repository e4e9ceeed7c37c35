"""Rules for tenant names, and detection of look-alikes by their UTS #39 skeletons."""

import re
from collections.abc import Mapping
from functools import cache
from unicodedata import category, normalize

from confusable_homoglyphs.utils import load

NAME_CHARACTERS_MAX = 128

INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
"""Characters without a glyph that Unicode counts as letters, marks or symbols."""


def normalized(name: str) -> str:
    """Return the form in which names are stored and looked up: NFKC, with single spaces.

    Control characters stay, and `is_fit` rejects them.
    """
    letters = normalize("NFKC", name)
    spaced = "".join(" " if category(letter) == "Zs" else letter for letter in letters)
    return " ".join(word for word in spaced.split(" ") if word)


def is_fit(name: str) -> bool:
    """Return whether a normalized name has 1 to `NAME_CHARACTERS_MAX` visible characters.

    Control, format (zero-width, bidirectional), private-use and unassigned characters are
    invisible.
    """
    fits = 1 <= len(name) <= NAME_CHARACTERS_MAX
    return fits and name.isprintable() and not INVISIBLE.search(name)


def lookalike_keys(name: str) -> frozenset[str]:
    """Return comparison keys, ignoring case. Two normalized names look alike if they share a key.

    The second key covers look-alikes of capital letters: for "INTEL", the keys are those of "intel"
    and "lntel".
    """
    return frozenset(skeleton(each.casefold()) for each in (name, skeleton(name)))


def skeleton(text: str) -> str:
    """Return the skeleton, which is equal for texts that look the same."""
    return normalize("NFD", normalize("NFD", text).translate(_prototypes()))


@cache
def _prototypes() -> Mapping[int, str]:
    """The library lists each pair under both of its members, the character before its prototype.

    A character has one prototype and is itself no prototype.
    """
    prototypes: dict[str, str] = {}
    for text, found in load("confusables.json").items():
        character, (other, *more) = _plain(text), (_plain(each["c"]) for each in found)
        if len(character) == 1 and not more and prototypes.get(other) != character:
            prototypes[character] = other
    return str.maketrans(prototypes)


def _plain(text: str) -> str:
    """Remove the direction marks that the data has around right-to-left characters."""
    return text.replace("\u200e", "")
