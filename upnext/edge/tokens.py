"""Who a page's user is: a token that the product signs, so that nobody can ask for another user."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from upnext.edge.refusal import Refused
from upnext.errors import UpnextError

AUDIENCE = "upnext"
LONGEST = timedelta(hours=24)
LEAST_SECRET = 32
"""Bytes of a secret: as many as the hash has."""
MOST_REMEMBERED = 10_000


_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class TokenKey:
    """A key that verifies: a secret for HS256, or a public key for EdDSA; a token may name it by its `kid`."""

    kid: str | None
    algorithm: str
    key: Any


def keys_of(environment: Mapping[str, str] = os.environ) -> list[TokenKey]:
    """Return the keys of `UPNEXT_EDGE_TOKEN_KEYS`, newest first: `[kid=]secret`, or `[kid=]/path/to/public.pem`.

    Raises `UpnextError` for one that cannot be used; the message holds no secret.
    """
    keys = []
    for nth, stated in enumerate(environment.get("UPNEXT_EDGE_TOKEN_KEYS", "").replace(",", " ").split(), start=1):
        kid, _, text = stated.partition("=")
        # A secret may have `=` in it, as base64 does at its end: a name has a key behind it.
        is_named = _NAME.fullmatch(kid) and (text.endswith(".pem") or len(text.encode()) >= LEAST_SECRET)
        named, text = (kid, text) if is_named else (None, stated)
        if text.endswith(".pem"):
            keys.append(TokenKey(named, "EdDSA", _public_key(Path(text))))
        elif len(text.encode()) < LEAST_SECRET:
            raise UpnextError(f"UPNEXT_EDGE_TOKEN_KEYS: secret {nth} is shorter than {LEAST_SECRET} bytes")
        else:
            keys.append(TokenKey(named, "HS256", text))
    return keys


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError):
        raise UpnextError(f"UPNEXT_EDGE_TOKEN_KEYS: {path} holds no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UpnextError(f"UPNEXT_EDGE_TOKEN_KEYS: the key of {path} is not of Ed25519")
    return key


class Tokens:
    """Verifies tokens, and remembers those that are verified until they expire."""

    def __init__(self, keys: list[TokenKey]) -> None:
        self._keys = keys
        self._verified: dict[str, tuple[str, datetime]] = {}

    def user_of(self, token: str, *, now: datetime) -> str:
        """Return the user that a token names. Raises `Refused` for one that no key of ours signed, or that is old."""
        known = self._verified.get(token)
        if known is not None and known[1] > now:
            return known[0]
        user, expires_at = self._verify(token, now)
        if len(self._verified) >= MOST_REMEMBERED:
            self._verified.clear()
        self._verified[token] = (user, expires_at)
        return user

    def _verify(self, token: str, now: datetime) -> tuple[str, datetime]:
        refused = Refused(401, "invalid_token", "the token is not valid, or is too old")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise refused from None
        for key in self._keys:
            # A key verifies its own algorithm alone, so a public key is never taken for a secret.
            if key.algorithm != header.get("alg") or header.get("kid") not in (None, key.kid):
                continue
            try:
                claims = jwt.decode(
                    token, key.key, algorithms=[key.algorithm], audience=AUDIENCE, leeway=30,
                    options={"require": ["exp", "sub", "aud"]},
                )  # fmt: skip
            except jwt.InvalidTokenError:
                continue
            try:
                expires_at = datetime.fromtimestamp(claims["exp"], now.tzinfo)
            except (TypeError, ValueError, OverflowError, OSError):
                raise refused from None
            if expires_at - now > LONGEST + timedelta(minutes=5):
                raise Refused(401, "invalid_token", "the token is valid for more than 24 hours")
            if claims["sub"]:
                return claims["sub"], expires_at
        raise refused
