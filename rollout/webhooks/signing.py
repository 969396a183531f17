"""Signatures over a webhook's raw body, compared in constant time. Every secret is tried: that is how one is exchanged."""

import hashlib
import hmac
from collections.abc import Callable, Sequence

from rollout.errors import SignatureInvalid
from rollout.webhooks import headers as header
from rollout.webhooks.headers import GivenHeaders

REMEDY = "give the git server's webhook the same secret as server.webhook_secret_file (one of its lines)"


def digest(secret: bytes, message: bytes) -> bytes:
    """HMAC-SHA256."""
    return hmac.new(secret, message, hashlib.sha256).digest()


def only(headers: GivenHeaders, name: str) -> str:
    """The header's one value; SignatureInvalid when it is missing, empty or there twice."""
    found = header.values(headers, name)
    if len(found) != 1 or not found[0]:
        raise SignatureInvalid(f"the header {name} is there {len(found)} times, expected once", remedy=REMEDY)
    return found[0]


def check_hex(signature: str, body: bytes, secrets: Sequence[str]) -> None:
    """SignatureInvalid unless `signature` is the hex HMAC-SHA256 of `body` with one of the secrets."""
    given = signature.lower().encode()
    check(lambda secret: hmac.compare_digest(digest(secret.encode(), body).hex().encode(), given), secrets)


def check(signed_with: Callable[[str], bool], secrets: Sequence[str]) -> None:
    """SignatureInvalid unless one of the secrets fits. All are tried, so that time tells nothing of which."""
    fits = [signed_with(secret) for secret in secrets if secret]
    if not fits:
        raise SignatureInvalid("no webhook secret is configured", remedy="set server.webhook_secret_file")
    if not any(fits):
        raise SignatureInvalid("the signature fits none of the secrets", remedy=REMEDY)
