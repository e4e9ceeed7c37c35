"""API keys: ``rk_<key id>_<secret>``. Only a digest of the secret is ever stored or compared. Pure.

The id is public: logs, tables and commands name a key by it. The secret is 256 random bits, so an
unsalted digest, which can be looked up fast, is as hard to invert as a slow one.
"""

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field

from serve_app.domain.units import KeyId

SCOPE_RERANK = "rerank"
SCOPE_ADMIN = "admin"
SCOPES = (SCOPE_RERANK, SCOPE_ADMIN)

ID_CHARACTERS = 12  # of 36: 62 bits, so that ids made without asking each other never meet
SECRET_BYTES = 32

# Lengths are fixed and neither part holds a '_': a key reads in one way only.
_KEY = re.compile(rf"rk_([0-9a-z]{{{ID_CHARACTERS}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})")
_KEY_CHARACTERS = len("rk_") + ID_CHARACTERS + len("_") + 2 * SECRET_BYTES
_NO_DIGEST = bytes(hashlib.sha256().digest_size)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key in its two parts; printing it shows the public one only."""

    key_id: KeyId
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"rk_{self.key_id}_..."

    @property
    def secret_sha256(self) -> bytes:
        """What is stored in the secret's place."""
        return hashlib.sha256(self.secret.encode("ascii")).digest()

    def reveal(self) -> str:
        """The whole key, for its owner, once."""
        return f"rk_{self.key_id}_{self.secret}"


def generate() -> ApiKey:
    """A new key from the system's randomness."""
    letters = string.digits + string.ascii_lowercase
    key_id = "".join(secrets.choice(letters) for _ in range(ID_CHARACTERS))
    return ApiKey(KeyId(key_id), secrets.token_hex(SECRET_BYTES))


def parse(api_key: str) -> ApiKey | None:
    """The key's parts, or ``None`` for anything that cannot be a key."""
    if len(api_key) != _KEY_CHARACTERS:
        return None
    match = _KEY.fullmatch(api_key)
    return None if match is None else ApiKey(KeyId(match[1]), match[2])


def matches(api_key: ApiKey, stored_sha256: bytes | None) -> bool:
    """Whether the secret is the stored one; an unknown key (``None``) takes as long to refuse."""
    expected = _NO_DIGEST if stored_sha256 is None else stored_sha256
    same = hmac.compare_digest(api_key.secret_sha256, expected)
    return same and stored_sha256 is not None
