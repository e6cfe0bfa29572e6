"""Links in messages: signed, and naming a message and a stored address, never the address itself. Pure.

Opens, clicks, unsubscribes, preferences and messages as pages are served under `UPNEXT_BASE_URL`: `/o/<token>`,
`/c/<token>`, `/u/<token>`, `/p/<token>`, `/v/<token>`. The newest key signs; older ones still verify, so a key can be
rotated while messages are on their way.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from itsdangerous import BadSignature, URLSafeSerializer

Kind = Literal["open", "click", "unsubscribe", "preferences", "view"]
_PATHS: dict[str, Kind] = {"o": "open", "c": "click", "u": "unsubscribe", "p": "preferences", "v": "view"}


class Followed(NamedTuple):
    """What a token names: the message, and of a click the id of a row of `journeys.links`."""

    kind: Kind
    message_id: str
    link_id: str | None


class Links:
    """The links of one message; `used` are the addresses that clicks lead to, by their ids."""

    def __init__(
        self, base_url: str | None, keys: list[str], message_id: str, *, parameters: Mapping[str, str] | None = None
    ) -> None:
        self._parameters = parameters or {}
        self._base_url = base_url
        self._keys = keys
        self._message_id = message_id
        self.used: dict[str, str] = {}

    @property
    def open(self) -> str | None:
        """The pixel that tells that the message was opened; None where no address serves it."""
        return self._signed("o")

    @property
    def unsubscribe(self) -> str | None:
        """The page that unsubscribes by one click; None where no address serves it."""
        return self._signed("u")

    @property
    def preferences(self) -> str | None:
        """The page on which the user chooses topics; None where no address serves it."""
        return self._signed("p")

    @property
    def view(self) -> str | None:
        """The message as a page; None where no address serves it."""
        return self._signed("v")

    def click(self, url: str) -> str:
        """Return the link that counts a click and leads to `url`; `url` itself where no address serves it.

        The parameters of the policy are added to the address, but for those that it has.
        """
        url = _with_parameters(url, self._parameters)
        link_id = hashlib.sha256(url.encode()).hexdigest()[:16]
        signed = self._signed("c", link_id)
        if signed is None:
            return url
        self.used[link_id] = url
        return signed

    def _signed(self, path: str, link_id: str | None = None) -> str | None:
        if self._base_url is None:
            return None
        token = serializer(self._keys, _PATHS[path]).dumps([self._message_id, link_id] if link_id else self._message_id)
        return f"{self._base_url}/{path}/{token}"


def _with_parameters(url: str, parameters: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    stated = dict(parse_qsl(parts.query, keep_blank_values=True))
    added = urlencode({name: value for name, value in parameters.items() if name not in stated})
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, added))))) if added else url


def serializer(keys: list[str], kind: Kind) -> URLSafeSerializer:
    """Return what signs and verifies; `keys` are newest first, itsdangerous wants them oldest first."""
    return URLSafeSerializer(list(reversed(keys)), salt=f"upnext.{kind}")


def follow(path: str, token: str, keys: list[str]) -> Followed | None:
    """Return what a link names, by the path and token of its address; None for what no key of ours has signed."""
    kind = _PATHS.get(path)
    if kind is None:
        return None
    try:
        named = serializer(keys, kind).loads(token)
    except BadSignature:
        return None
    return Followed(kind, *named) if isinstance(named, list) else Followed(kind, named, None)
