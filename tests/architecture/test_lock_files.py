"""The lock files pin the version and file hashes of every dependency."""

import re
import tomllib
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
RUNTIME, DEV = ROOT / "requirements.txt", ROOT / "requirements-dev.txt"
ENTRY = re.compile(r"^(\S+)==(\S+)(?: \\\n    --hash=sha256:[0-9a-f]{64})+$", re.MULTILINE)
COMMENT = re.compile(r"^ *#.*$", re.MULTILINE)
SERVED_EXTRAS = ("engine", "openvino", "postgres", "traces")
"""Extras that the lock file for installation includes."""

DEV_EXTRAS = ("loadtest", "plan")
"""Further extras that the lock file for development includes."""

NOT_LOCKED = re.compile(r"torch|triton|(cuda|nvidia)-.+")
"""Torch and the packages that differ between its builds."""


def locked(lock_file: Path) -> dict[str, str]:
    """Return the versions in ``lock_file``, all with hashes, by normalized package name."""
    return {
        canonicalize_name(name): version for name, version in ENTRY.findall(lock_file.read_text())
    }


def declared() -> tuple[list[str], list[str]]:
    """Return the requirements in pyproject.toml, for installation and for development."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    build = pyproject["build-system"]["requires"]
    extras = project["optional-dependencies"]
    served = [requirement for extra in SERVED_EXTRAS for requirement in extras[extra]]
    itself, *dev = extras["dev"]
    assert itself == f"rerank-serve[{','.join(sorted(SERVED_EXTRAS + DEV_EXTRAS))}]"
    dev += {requirement for extra in DEV_EXTRAS for requirement in extras[extra]}
    return project["dependencies"] + served + build, sorted(dev)


def installed_closure(extras: Sequence[str]) -> dict[str, str]:
    """Return the installed versions of all dependencies with ``extras``.

    They include torch's dependencies, except those that differ between its builds.
    """
    versions: dict[str, str] = {}
    seen = {("rerank-serve", extra) for extra in extras}
    waiting = list(seen)
    while waiting:
        name, wanted_extra = waiting.pop()
        found = distribution(name)
        versions[name] = found.version
        for requirement in map(Requirement, found.requires or []):
            dependency = canonicalize_name(requirement.name)
            marker = requirement.marker
            if NOT_LOCKED.fullmatch(dependency) and dependency != "torch":
                continue
            if marker is not None and not marker.evaluate({"extra": wanted_extra}):
                continue
            for each in ({(dependency, "")} | {(dependency, e) for e in requirement.extras}) - seen:
                seen.add(each)
                waiting.append(each)
    del versions["rerank-serve"], versions["torch"]
    return versions


@pytest.mark.parametrize("lock_file", [RUNTIME, DEV], ids=lambda path: path.name)
def test_a_lock_file_has_only_exact_versions_with_hashes(lock_file: Path) -> None:
    without_comments = COMMENT.sub("", lock_file.read_text())

    assert not ENTRY.sub("", without_comments).strip()


@pytest.mark.parametrize("requirement", declared()[0], ids=str)
def test_every_declared_runtime_dependency_is_locked(requirement: str) -> None:
    assert_locked(requirement, RUNTIME)


@pytest.mark.parametrize("requirement", declared()[1], ids=str)
def test_every_declared_development_dependency_is_locked(requirement: str) -> None:
    assert_locked(requirement, DEV)


def assert_locked(text: str, lock_file: Path) -> None:
    """Check that ``lock_file`` has a version that the requirement ``text`` allows."""
    requirement = Requirement(text)
    name = canonicalize_name(requirement.name)
    if not NOT_LOCKED.fullmatch(name):
        version = locked(lock_file).get(name)
        assert version is not None, f"{text} is not locked: run 'make lock'"
        assert requirement.specifier.contains(version, prereleases=True), f"{text}: {version}"


@pytest.mark.parametrize(("lock_file", "extras"), [(RUNTIME, SERVED_EXTRAS), (DEV, ["dev"])])
def test_every_installed_package_has_the_locked_version(
    lock_file: Path, extras: Sequence[str]
) -> None:
    installed = installed_closure(extras)

    assert len(installed) > 50
    assert installed.items() <= locked(lock_file).items(), "run 'make .venv/.dev'"


def test_the_development_lock_file_includes_the_runtime_one() -> None:
    assert locked(RUNTIME).items() <= locked(DEV).items()
