"""The pages of Otto, with a token for whoever the visitor chose to be. For the demo alone: it signs for anybody."""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import falcon
import jwt
import sqlalchemy as sa
from falcon import Request, Response
from jinja2 import Environment, FileSystemLoader
from sqlalchemy.engine import Engine

from upnext.clock import utc_now

HERE = Path(__file__).parent
COOKIE = "otto_user"
PAGES = {
    "": ("home", "web", "Plan less, ship more"),
    "pricing": ("pricing", "web", "Pricing"),
    "dashboard": ("dashboard", "in_app", "Dashboard"),
}
"""By path: the template, the surface, and the title."""
FILES = {"site.css": "text/css", "site.js": "text/javascript"}
_PEOPLE = """
    with people as (
        select
            members.segment,
            members.user_id,
            coalesce(string_agg(live.source || ': ' || live.variant, ', '), '') as arms,
            count(live.copy) as shown
        from segments.members
        left join experiences.live_ctas as live on live.user_id = members.user_id
        group by members.segment, members.user_id
    )

    select segment, user_id, arms
    from (
        select *, row_number() over (partition by segment, shown > 0 order by shown desc, md5(user_id)) as nth
        from people
    ) as ranked
    where nth <= case when shown > 0 then 4 else 2 end
    order by segment, shown desc, user_id
"""
"""A few members of each segment, who see most, and two who see nothing."""


@dataclass(frozen=True)
class Site:
    """Where the edge is, by which key the pages talk to it, and the secret that signs for users."""

    engine: Engine
    edge: str
    key: str
    secret: str


class Page:
    """A page of Otto."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True)

    def on_get(self, request: Request, response: Response, name: str = "") -> None:
        """Show a page to whoever the visitor is now."""
        if name not in PAGES:
            raise falcon.HTTPNotFound
        template, surface, title = PAGES[name]
        user = next(iter(request.get_cookie_values(COOKIE) or []), None)
        response.content_type = falcon.MEDIA_HTML
        response.text = self._templates.get_template(f"{template}.html").render(
            site=self._site, surface=surface, title=title, path=f"/{name}", user=user, people=self._people(),
            token=self._token(user) if user else None,
        )  # fmt: skip

    def _people(self) -> dict[str, list[Any]]:
        people: dict[str, list[Any]] = {}
        with self._site.engine.connect() as connection:
            for row in connection.execute(sa.text(_PEOPLE)):
                people.setdefault(row.segment, []).append(row)
        return people

    def _token(self, user: str) -> str:
        claims = {"sub": user, "aud": "upnext", "exp": utc_now() + timedelta(hours=12)}
        return jwt.encode(claims, self._site.secret, algorithm="HS256")


class Be:
    """The switch: be this user, a new one, or nobody."""

    def on_post(self, request: Request, response: Response) -> None:
        """Keep the choice in a cookie, and go back."""
        form = request.get_media()
        user = form.get("user", "")
        if user == "new":
            user = f"you-{secrets.token_hex(3)}"
        if user:
            response.set_cookie(COOKIE, user, secure=False, same_site="Lax", path="/")
        else:
            response.unset_cookie(COOKIE, path="/")
        page = form.get("page", "/").lstrip("/")
        raise falcon.HTTPSeeOther(f"/{page}" if page in PAGES else "/")


class File:
    """The style and the script of the pages."""

    def on_get(self, _request: Request, response: Response, name: str) -> None:
        """Serve one of them."""
        if name not in FILES:
            raise falcon.HTTPNotFound
        response.text = (HERE / "files" / name).read_text(encoding="utf-8")
        response.content_type = FILES[name]


def create(site: Site) -> falcon.App[Request, Response]:
    """Return the site as a WSGI application."""
    app = falcon.App()
    page = Page(site)
    app.add_route("/", page)
    app.add_route("/{name}", page)
    app.add_route("/be", Be())
    app.add_route("/files/{name}", File())
    return app
