"""Decisions: which call to action a user sees in each slot, by OpenFeature's remote evaluation (OFREP)."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import falcon
import msgspec
import psycopg
from falcon.asgi import Request, Response

from upnext.clock import utc_now
from upnext.edge.collector import is_bot
from upnext.edge.keys import Key, key_of_header
from upnext.edge.limits import Limits
from upnext.edge.refusal import Refused
from upnext.edge.requests import body_of, has_already
from upnext.edge.tokens import Tokens
from upnext.events.event import MAX_KEY_BYTES

ANSWERED_WITHIN = 60.0
"""The age in seconds of an answer that is given again while the warehouse is away."""
MOST_REMEMBERED = 50_000
NEVER = datetime.max.replace(tzinfo=UTC)
PER_EVENT = 10
"""Decisions that a key may ask for, for each event that it may send."""
NO_CTAS = "[]"
NOTHING: dict[str, Any] = {"reason": "DEFAULT", "variant": "none", "value": {"variant": "none"}, "metadata": {}}


class Live(msgspec.Struct):
    """A call to action of a user, as a row of `experiences.live_ctas` says it."""

    flag: str
    source: str
    source_kind: str
    variant: str
    copy: str | None
    url: str | None
    trigger: Any
    starts_at: datetime
    ends_at: datetime | None
    steps: Any
    is_public: bool


class Answer(NamedTuple):
    """The answer of all flags, which holds from one time to another."""

    since: datetime
    until: datetime
    content: bytes
    """Most users are shown nothing, and their answers are one and the same object."""
    tag: str


class Shown:
    """The calls to action of a user, and the answers that were written from them: signed, and not signed."""

    __slots__ = ("answers", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.answers: dict[bool, Answer] = {}

    def live(self) -> list[Live]:
        """Read the text."""
        return _LIVE.decode(self.text)


_LIVE = msgspec.json.Decoder(list[Live])


class LookUps:
    """Looks up all users who wait in one query, and then those who came meanwhile."""

    def __init__(
        self, ask: Callable[[list[str]], Awaitable[Sequence[Any]]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        # By a clock that is never set back.
        self._clock = clock
        self._waiting: dict[str, list[asyncio.Future[Shown]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._last: OrderedDict[str, tuple[float, Shown]] = OrderedDict()

    async def of(self, user: str) -> Shown:
        """Return the calls to action of a user. Raises `Refused` where neither the warehouse nor the memory has any."""
        found: asyncio.Future[Shown] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user, []).append(found)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await found

    async def _run(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, {}
            now = self._clock()
            try:
                rows = await self._ask(list(waiting))
            except (psycopg.Error, OSError):
                for user, futures in waiting.items():
                    at, known = self._last.get(user, (now, None))
                    self._answer(futures, known if now - at <= ANSWERED_WITHIN else None)
                continue
            texts: dict[str, str] = {row.user_id: row.shown for row in rows}
            for user, futures in waiting.items():
                text = texts.get(user, NO_CTAS)
                _, known = self._last.get(user, (now, None))
                shown = known if known is not None and known.text == text else Shown(text)
                self._last[user] = (now, shown)
                self._last.move_to_end(user)
                self._answer(futures, shown)
            while len(self._last) > MOST_REMEMBERED:
                self._last.popitem(last=False)

    def _answer(self, futures: list[asyncio.Future[Shown]], shown: Shown | None) -> None:
        for future in futures:
            if future.cancelled():
                continue
            if shown is None:
                future.set_exception(Refused(503, "unavailable", "nothing can be looked up now", retry_after=2))
            else:
                future.set_result(shown)


class Decisions:
    """Flags are slots on a surface (`web.homepage_banner`); their values are calls to action."""

    def __init__(
        self, look_ups: LookUps, tokens: Tokens, flags: Mapping[str, str], limits: Limits,
        key_for: Callable[[Request, str | None], Awaitable[Key]],
    ) -> None:  # fmt: skip
        self._look_ups = look_ups
        self._tokens = tokens
        self._flags = flags
        # Most slots show a user nothing, so that part of an answer is written once.
        self._nothing = {flag: msgspec.Raw(msgspec.json.encode({"key": flag, **NOTHING})) for flag in sorted(flags)}
        self._no_content = self._content_of({})
        self._limits = limits
        self._key_for = key_for

    async def on_post(self, request: Request, response: Response) -> None:
        """Answer all flags, or 304 where the asker has this answer already."""
        user, shown, is_signed = await self._look_up(request, response, None)
        now = utc_now()
        answer = shown.answers.get(is_signed)
        if answer is None or not answer.since <= now < answer.until:
            answer = shown.answers[is_signed] = self.answer(user, shown.live(), is_signed, now)
        response.set_header("ETag", answer.tag)
        if has_already(request, answer.tag):
            response.status = 304
            return
        response.data = answer.content

    async def on_post_one(self, request: Request, response: Response, key: str) -> None:
        """Answer one flag."""
        _, shown, is_signed = await self._look_up(request, response, key)
        found = self._flags_of(shown.live(), is_signed, utc_now())
        response.data = msgspec.json.encode({"key": key, **found.get(key, NOTHING)})

    def answer(self, user: str, live: list[Live], is_signed: bool, now: datetime) -> Answer:
        """Write the answer of all flags, which holds until the next start or end of a call to action."""
        found = self._flags_of(live, is_signed, now)
        content = self._content_of(found) if found else self._no_content
        tag = hashlib.sha256(user.encode() + b"\0" + content).hexdigest()[:32]
        changes = (at for cta in live for at in (cta.starts_at, cta.ends_at) if at is not None and at > now)
        return Answer(now, min(changes, default=NEVER), content, f'"{tag}"')

    def _content_of(self, found: Mapping[str, Any]) -> bytes:
        flags = [{"key": flag, **found[flag]} if flag in found else none for flag, none in self._nothing.items()]
        return msgspec.json.encode({"flags": flags})

    def _flags_of(self, live: list[Live], is_signed: bool, now: datetime) -> Mapping[str, Any]:
        """Return what a user sees at a time, by flag; a user who is not signed sees what is public."""
        return {
            cta.flag: seen(cta, self._flags.get(cta.flag))
            for cta in live
            if cta.starts_at <= now and (cta.ends_at is None or cta.ends_at > now) and (is_signed or cta.is_public)
        }

    async def _look_up(self, request: Request, response: Response, flag: str | None) -> tuple[str, Shown, bool]:
        """Return the user, what the user is shown, and whether the user is signed. Raises `Refused`."""
        response.content_type = falcon.MEDIA_JSON
        response.set_header("Cache-Control", "private, no-store")
        try:
            body = msgspec.json.decode(await body_of(request), type=dict[str, Any])
            context = body.get("context", {})
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _failure(400, "PARSE_ERROR", "the body is no JSON object", flag) from None
        if not isinstance(context, dict):
            raise _failure(400, "INVALID_CONTEXT", "the context is no object", flag)
        key = await self._key_for(request, _text(context.get("writeKey")))
        wait = self._limits.take(key.key_id, key.events_per_second * PER_EVENT, 1)
        if wait is not None:
            raise Refused(429, "too_many_requests", "this key asks faster than it may", retry_after=wait)
        user = context.get("targetingKey")
        if not isinstance(user, str) or not user:
            raise _failure(400, "TARGETING_KEY_MISSING", "the context names no user as its targetingKey", flag)
        if "\0" in user or len(user.encode()) > MAX_KEY_BYTES:
            raise _failure(400, "INVALID_CONTEXT", "the targetingKey is no id of a user", flag)
        if flag is not None and flag not in self._flags:
            raise _failure(404, "FLAG_NOT_FOUND", "no slot of slots.yml is called so on this surface", flag)
        is_signed = self._check_user(request, key, user, _text(context.get("upnextToken")))
        if key.kind == "write" and is_bot(request.user_agent):
            return user, Shown(NO_CTAS), is_signed
        return user, await self._look_ups.of(user), is_signed

    def _check_user(self, request: Request, key: Key, user: str, token: str | None) -> bool:
        """Whether the asker may see all that a user sees. Raises `Refused` where it may not ask for this user."""
        if key.kind == "server":
            return True
        stated = request.get_header("X-Upnext-Token") or token or _token_of(request.get_header("Authorization"))
        if stated is None:
            if key.identity == "required":
                raise Refused(401, "token_missing", "this key needs the user's token")
            return False
        if self._tokens.user_of(stated, now=utc_now()) != user:
            raise Refused(403, "another_user", "the token is of another user")
        return True


def seen(cta: Live, kind: str | None) -> dict[str, Any]:
    """Return what a call to action is as a flag. Control has a value too, whose copy is null."""
    value = {
        "source": cta.source, "source_kind": cta.source_kind, "variant": cta.variant, "copy": cta.copy, "url": cta.url,
        "trigger": cta.trigger, "ends_at": cta.ends_at, **({"steps": cta.steps} if cta.steps and cta.copy else {}),
    }  # fmt: skip
    reason = "SPLIT" if cta.source_kind == "experience" else "TARGETING_MATCH"
    return {
        "reason": reason,
        "variant": cta.variant,
        "value": value,
        "metadata": {"source": cta.source, "kind": kind or "banner"},
    }


def _token_of(authorization: str | None) -> str | None:
    stated = key_of_header(authorization) if (authorization or "").lower().startswith("bearer ") else None
    return stated if stated is not None and stated.count(".") == 2 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _failure(status: int, code: str, details: str, flag: str | None) -> Refused:
    # The Python provider fails where one of these is left out.
    body = {"key": flag or "", "errorCode": code, "errorDetails": details}
    return Refused(status, code.lower(), details, body=body)
