"""Cross-origin requests: whose pages may talk to the edge. Pure.

A listed origin is a browser key's only guard. It stops other people's pages, not their programs.
"""

from collections.abc import Collection, Mapping

ANY = "*"
METHODS = "GET, POST"
HEADERS = "authorization, content-type, if-none-match, x-retry-count, x-api-key, x-write-key, x-upnext-token"
EXPOSED = "ETag, Retry-After"
# Chromium keeps the answer to a preflight no longer than this.
MAX_AGE = "7200"


def is_allowed(origin: str, *, host: str, listed: Collection[str]) -> bool:
    """Whether a page of this origin may talk to the edge that is asked as `host`.

    >>> is_allowed("https://otto.example", host="edge.otto.example", listed=["https://otto.example"])
    True
    >>> is_allowed("https://otto.example.evil", host="edge.otto.example", listed=["https://otto.example"])
    False
    """
    return ANY in listed or origin in listed or is_own(origin, host)


def is_own(origin: str, host: str) -> bool:
    """Whether a page was served under the name that it now asks."""
    return origin in (f"http://{host}", f"https://{host}")


def headers_of(origin: str, *, is_preflight: bool) -> Mapping[str, str]:
    """Return what allows a page of `origin` to read an answer, or to send a request. Never with credentials."""
    headers = {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED}
    if is_preflight:
        headers |= {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": HEADERS,
            "Access-Control-Max-Age": MAX_AGE,
        }
    return headers
