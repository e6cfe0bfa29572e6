"""The pages that people see: no script, and a policy that lets none in."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

_HERE = Path(__file__).parent
_STYLE = (_HERE / "style.css").read_text(encoding="utf-8")
_PAGES = Environment(loader=FileSystemLoader(_HERE), autoescape=True)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store, private",
    "Referrer-Policy": "no-referrer",
}


def page(name: str, **values: Any) -> str:
    """Return a page as HTML."""
    return _PAGES.get_template(f"{name}.html").render(style=Markup(_STYLE), **values)  # noqa: S704 - our own file
