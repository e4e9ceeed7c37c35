"""API keys: ``rk_<key id>_<secret>``. Only a digest of the secret is stored or compared.

The public id identifies a key in logs, tables and commands. The secret is 256 random bits, so a
fast, unsalted digest of it is as hard to invert as a slow one.
"""

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field

from serve_app.domain.units import KeyId

SCOPE_RERANK = "rerank"
SCOPE_MANAGE = "manage"
"""Access to the account of the key's own tenant."""

SCOPE_ADMIN = "admin"
"""Access to the accounts of all tenants."""

SCOPES = (SCOPE_RERANK, SCOPE_MANAGE, SCOPE_ADMIN)

ID_CHARACTERS = 12  # 62 random bits (base 36), so that ids do not collide.
SECRET_BYTES = 32

# The lengths are fixed and neither part contains '_': a key can only be split in one way.
_KEY = re.compile(rf"rk_([0-9a-z]{{{ID_CHARACTERS}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})")
_KEY_CHARACTERS = len("rk_") + ID_CHARACTERS + len("_") + 2 * SECRET_BYTES
_NO_DIGEST = bytes(hashlib.sha256().digest_size)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key. Printing it shows only the public id."""

    key_id: KeyId
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"rk_{self.key_id}_..."

    @property
    def secret_sha256(self) -> bytes:
        return hashlib.sha256(self.secret.encode("ascii")).digest()

    def reveal(self) -> str:
        """Return the whole key, to be shown once."""
        return f"rk_{self.key_id}_{self.secret}"


def generate() -> ApiKey:
    letters = string.digits + string.ascii_lowercase
    key_id = "".join(secrets.choice(letters) for _ in range(ID_CHARACTERS))
    return ApiKey(KeyId(key_id), secrets.token_hex(SECRET_BYTES))


def parse(api_key: str) -> ApiKey | None:
    if len(api_key) != _KEY_CHARACTERS:
        return None
    match = _KEY.fullmatch(api_key)
    return None if match is None else ApiKey(KeyId(match[1]), match[2])


def matches(api_key: ApiKey, stored_sha256: bytes | None) -> bool:
    """Compare in constant time, also for an unknown key (``None``)."""
    expected = _NO_DIGEST if stored_sha256 is None else stored_sha256
    same = hmac.compare_digest(api_key.secret_sha256, expected)
    return same and stored_sha256 is not None
