"""Which names tenants may have, and when two names look alike.

The skeletons are those of UTS #39, computed from the data of ``confusable_homoglyphs``.
"""

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
    """``name`` in the form in which names are stored and looked up.

    That is NFKC, without white space at the ends, and with one space between words. Control
    characters stay, line breaks too: `is_fit` refuses them.
    """
    letters = normalize("NFKC", name)
    spaced = "".join(" " if category(letter) == "Zs" else letter for letter in letters)
    return " ".join(word for word in spaced.split(" ") if word)


def is_fit(name: str) -> bool:
    """Whether a normalized name has 1 to `NAME_CHARACTERS_MAX` characters, all of them visible.

    Control, format (zero-width, bidirectional), private-use and unassigned characters are not.
    """
    fits = 1 <= len(name) <= NAME_CHARACTERS_MAX
    return fits and name.isprintable() and not INVISIBLE.search(name)


def lookalike_keys(name: str) -> frozenset[str]:
    """Two normalized names look alike if they have a key in common.

    The first key ignores case, and the second one also what the capitals look like: "INTEL" is
    "intel" by the first and "lntel" by the second.
    """
    return frozenset(skeleton(each.casefold()) for each in (name, skeleton(name)))


def skeleton(text: str) -> str:
    """The skeleton of UTS #39: equal for texts that look the same."""
    return normalize("NFD", normalize("NFD", text).translate(_prototypes()))


@cache
def _prototypes() -> Mapping[int, str]:
    """The prototype of each confusable character.

    The library lists each pair under both of its members, the character before its prototype. A
    character has one prototype, and is the prototype of no other.
    """
    prototypes: dict[str, str] = {}
    for text, found in load("confusables.json").items():
        character, (other, *more) = _plain(text), (_plain(each["c"]) for each in found)
        if len(character) == 1 and not more and prototypes.get(other) != character:
            prototypes[character] = other
    return str.maketrans(prototypes)


def _plain(text: str) -> str:
    """Without the direction marks that the data puts around right-to-left characters."""
    return text.replace("\u200e", "")
