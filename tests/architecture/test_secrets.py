"""No file of the repository contains a credential."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.access.api_keys import ID_CHARACTERS, SECRET_BYTES

ROOT = Path(__file__).parents[2]
IGNORED = re.compile(r"\.git|\.venv.*|var|dist|__pycache__|\.hypothesis|\..+_cache|.*\.egg-info")
CREDENTIALS = {
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "key of this service": rf"\brk_[0-9a-z]{{{ID_CHARACTERS}}}_[0-9a-f]{{{2 * SECRET_BYTES}}}\b",
    "key of AWS": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "token of GitHub": r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})\b",
    "token of Hugging Face": r"\bhf_[A-Za-z0-9]{34}\b",
    "token of PyPI": r"\bpypi-[A-Za-z0-9_-]{60,}",
    "token of Slack": r"\bxox[abposr]-[A-Za-z0-9-]{20,}",
    "key of Google": r"\bAIza[A-Za-z0-9_-]{35}\b",
    "key of OpenAI or Anthropic": r"\bsk-(proj-|ant-)?[A-Za-z0-9_-]{40,}",
    "JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.",
    "password in a URL": r"\b[a-z+]+://[A-Za-z0-9_.-]+:(?!password@|secret@)[^\s/@'\"<>{}$:]{6,}@[a-z0-9]",
}
PATTERNS = {kind: re.compile(pattern) for kind, pattern in CREDENTIALS.items()}


def credentials_in(text: str) -> list[str]:
    """Return the line number and kind of each credential, without the credential."""
    return [
        f"{number}: {kind}"
        for number, line in enumerate(text.splitlines(), start=1)
        for kind, pattern in PATTERNS.items()
        if pattern.search(line)
    ]


def repository_files() -> Iterator[Path]:
    """Yield all files but those that ``.gitignore`` names."""
    for folder, names, files in os.walk(ROOT):
        names[:] = [name for name in names if not IGNORED.fullmatch(name)]
        yield from (Path(folder, name) for name in files)


def test_no_file_contains_a_credential() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{each}"
        for path in repository_files()
        for each in credentials_in(path.read_text(encoding="utf-8", errors="ignore"))
    ]

    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "-----BEGIN RSA PRIVATE KEY" + "-----",
        "key: rk_" + "0" * ID_CHARACTERS + "_" + "ab" * SECRET_BYTES,
        "AKIA" + "ABCDEFGH" * 2,
        "ghp_" + "a1B2" * 9,
        "hf_" + "aB" * 17,
        "sk-proj-" + "a1" * 24,
        "postgresql://rerank:" + "hunter22@db.example",
    ],
    ids=lambda line: line[:12],
)
def test_credentials_are_recognized(line: str) -> None:
    assert len(credentials_in(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "postgresql+psycopg://user:password@host/database",
        "sk-learn",
        "rk_0123456789ab_ffff",
        "git@",
    ],
)
def test_placeholders_are_no_credentials(line: str) -> None:
    assert credentials_in(line) == []
