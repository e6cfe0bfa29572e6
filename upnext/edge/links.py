"""The links of messages: opens, clicks, unsubscribing and preferences. A GET changes nothing that a user chose."""

import asyncio
import contextlib
from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import falcon
import msgspec
import psycopg
from falcon.asgi import Request, Response

from upnext.clock import utc_now
from upnext.edge.pages import HEADERS, page
from upnext.edge.refusal import Refused
from upnext.edge.requests import body_of
from upnext.edge.warehouse import Warehouse
from upnext.journeys.copy.links import Followed, follow
from upnext.journeys.policy import Topic

OWN = "upnext"
GIF = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
SAME_WITHIN = 10
"""Seconds in which two opens, or two clicks on one link, are one."""
TOO_SOON = timedelta(seconds=2)
TOLD_WITHIN = 1.5
"""Seconds that a reader waits for an open or a click to be stored; then it is not counted."""
MOST_REMEMBERED = 10_000
MACHINES = (
    "googleimageproxy", "yahoomailproxy", "bot", "crawler", "spider", "scanner", "barracuda", "proofpoint", "mimecast",
    "headlesschrome", "python-requests", "curl/", "wget/",
)  # fmt: skip


class Links:
    """What the links of messages need: keys that verify them, the inbox, the warehouse, and the topics."""

    def __init__(self, warehouse: Warehouse, inbox: Any, keys: Sequence[str], topics: Mapping[str, Topic]) -> None:
        self._warehouse = warehouse
        self._inbox = inbox
        self._keys = list(keys)
        self._topics = topics
        self._told: set[str] = set()

    async def on_get_open(self, request: Request, response: Response, token: str) -> None:
        """Answer with a picture of one pixel, whatever the token; a good one tells that the message was opened."""
        named = follow("o", token, self._keys)
        if named is not None and request.method == "GET":
            with contextlib.suppress(Refused, psycopg.Error, OSError):
                await self._tell("opened", named, request)
        response.data = GIF
        response.content_type = "image/gif"
        response.set_header("Cache-Control", "no-store, private")

    on_head_open = on_get_open

    async def on_get_click(self, request: Request, response: Response, token: str) -> None:
        """Lead to the address that is stored for the link, and tell that it was clicked."""
        named = self._followed("c", token)
        try:
            url = await self._tell("clicked", named, request)
        except (psycopg.Error, OSError):
            raise Refused(503, "unavailable", "the link cannot be looked up now", retry_after=2) from None
        if url is None:
            raise _unknown()
        response.status = falcon.HTTP_302
        response.location = url
        response.set_header("Cache-Control", "no-store")
        response.set_header("Referrer-Policy", "no-referrer")

    on_head_click = on_get_click

    async def on_get_unsubscribe(self, _request: Request, response: Response, token: str) -> None:
        """Show a page with a button."""
        self._followed("u", token)
        _show(response, page("unsubscribe", title="Unsubscribe from these mails?"))

    on_head_unsubscribe = on_get_unsubscribe

    async def on_post_unsubscribe(self, request: Request, response: Response, token: str) -> None:
        """Unsubscribe, by a mail client (RFC 8058) or by the page's button; again is as well as once."""
        await body_of(request)
        message_id, now = self._followed("u", token).message_id, utc_now()
        line = _line(
            "message unsubscribed", f"unsubscribed:{message_id}", now, user_id=await self._user_of(message_id),
            message_id=message_id, source="link",
        )  # fmt: skip
        await self._ask("unsubscribe", message_id=message_id, now=now, source="link", is_of_all=False, line=line)
        _show(response, page("unsubscribed", title="You have unsubscribed"))

    async def on_get_preferences(self, request: Request, response: Response, token: str) -> None:
        """Show the topics, and what the user has said about each."""
        await self._show_preferences(response, self._followed("p", token).message_id, is_saved=False)

    on_head_preferences = on_get_preferences

    async def on_post_preferences(self, request: Request, response: Response, token: str) -> None:
        """Keep what the user chose."""
        form = parse_qs((await body_of(request)).decode(errors="replace"))
        message_id, now = self._followed("p", token).message_id, utc_now()
        if "resubscribe" in form or "unsubscribe" in form:
            asked = "resubscribe" if "resubscribe" in form else "unsubscribe"
            line = _line(
                f"message {asked}d", f"{asked}d:all:{message_id}:{now.isoformat()}", now,
                user_id=await self._user_of(message_id), message_id=message_id, source="preferences", all=True,
            )  # fmt: skip
            values = {"source": "preferences", "is_of_all": True} if asked == "unsubscribe" else {}
            await self._ask(asked, message_id=message_id, now=now, line=line, **values)
        else:
            said = await self._said(message_id)
            for name in self._topics:
                is_granted = name in form.get("topic", [])
                if is_granted != self._is_granted(name, said.said):
                    event = "topic subscribed" if is_granted else "topic unsubscribed"
                    line = _line(
                        event, f"{event}:{said.user_id}:{name}:{now.isoformat()}", now, user_id=said.user_id,
                        topic=name, source="preferences",
                    )  # fmt: skip
                    await self._ask(
                        "choose", user_id=said.user_id, topic=name, is_granted=is_granted, now=now, line=line
                    )  # fmt: skip
        await self._show_preferences(response, message_id, is_saved=True)

    async def _show_preferences(self, response: Response, message_id: str, *, is_saved: bool) -> None:
        found = await self._said(message_id)
        topics = [
            {"name": name, "title": name.replace("_", " ").capitalize(), "description": topic.description,
             "is_granted": self._is_granted(name, found.said)}
            for name, topic in self._topics.items()
        ]  # fmt: skip
        _show(response, page(
            "preferences", title="Which mails do you want?", topics=topics, is_stopped=found.is_stopped,
            is_saved=is_saved,
        ))  # fmt: skip

    async def _user_of(self, message_id: str) -> str:
        return str((await self._said(message_id)).user_id)

    async def _said(self, message_id: str) -> Any:
        found = await self._ask("preferences", message_id=message_id)
        if not found:
            raise _unknown()
        return found[0]

    def _is_granted(self, topic: str, said: Mapping[str, bool]) -> bool:
        return said.get(topic, self._topics[topic].default == "opt_out")

    def _followed(self, path: str, token: str) -> Followed:
        named = follow(path, token, self._keys)
        if named is None:
            raise _unknown()
        return named

    async def _tell(self, what: str, named: Followed, request: Request) -> str | None:
        """Write that a message was opened or clicked, and return the address that the link leads to."""
        found = await self._warehouse.ask("message", message_id=named.message_id, link_id=named.link_id)
        if not found:
            return None
        (message,), now = found, utc_now()
        agent = (request.user_agent or "").lower()
        is_machine = (
            request.method == "HEAD"
            or "prefetch" in (request.get_header("Sec-Purpose") or request.get_header("Purpose") or "")
            or any(word in agent for word in MACHINES)
            or (what == "clicked" and message.sent_at is not None and now - message.sent_at < TOO_SOON)
        )
        properties = {"message_id": named.message_id, "source": "link", **({"machine": True} if is_machine else {})}
        if message.url is not None:
            properties["url"] = message.url
        parts = [what, named.message_id, named.link_id, "machine" if is_machine else None,
                 f"{int(now.timestamp()) // SAME_WITHIN}"]  # fmt: skip
        once = ":".join(filter(None, parts))
        line = _line(f"message {what}", once, now, user_id=message.user_id, **properties)
        if once not in self._told:
            self._remember(once)
            with contextlib.suppress(Refused, TimeoutError):
                async with asyncio.timeout(TOLD_WITHIN):
                    await self._inbox.put([(OWN, now, line)])
        return str(message.url) if message.url is not None else None

    def _remember(self, once: str) -> None:
        if len(self._told) >= MOST_REMEMBERED:
            self._told.clear()
        self._told.add(once)

    async def _ask(self, name: str, **values: Any) -> list[Any]:
        try:
            return await self._warehouse.ask(name, **values)
        except (psycopg.Error, OSError):
            raise Refused(503, "unavailable", "this cannot be stored now", retry_after=2) from None


def _line(event: str, event_id: str, at: datetime, *, user_id: str, **properties: Any) -> bytes:
    return msgspec.json.encode({
        "type": "track", "event": event, "messageId": event_id, "userId": user_id, "timestamp": at,
        "properties": properties,
    })  # fmt: skip


def _show(response: Response, text: str) -> None:
    response.text = text
    response.content_type = falcon.MEDIA_HTML
    response.set_headers(HEADERS)


def _unknown() -> Refused:
    return Refused(404, "unknown_link", "this link is not known")
