"""Events of the Segment spec, about 350 bytes each, as a browser's library and a collector would write them."""

import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("login", "created ml task", "exported report", "viewed upgrade plan", "product viewed", "created object")
USERS, ACCOUNTS = 100_000, 4_000


def lines(count: int, *, seed: int) -> Iterator[bytes]:
    """Yield `count` JSON lines; the same seed gives the same lines, another seed gives other message ids."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    for number in range(count):
        at = START + timedelta(milliseconds=number * 700 + rng.randrange(700))
        event = {
            "type": "track",
            "event": rng.choice(NAMES),
            "messageId": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            "userId": f"u{rng.randrange(USERS):06d}",
            "originalTimestamp": _text(at),
            "sentAt": _text(at + timedelta(milliseconds=120)),
            "receivedAt": _text(at + timedelta(milliseconds=180)),
            "timestamp": _text(at + timedelta(milliseconds=60)),
            "properties": {"object_id": rng.randrange(1_000_000), "plan": "basic"},
            "context": {"groupId": f"a{rng.randrange(ACCOUNTS)}", "app": "web"},
        }
        yield json.dumps(event, separators=(",", ":")).encode() + b"\n"


def _text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
