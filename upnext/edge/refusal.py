"""Refusals: what a client is told, and how often it was told so."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """A request that is not served: its status, a short code for machines, and a sentence for people.

    `body` takes the place of both in the answer, where a client expects another form.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: int | None = None,
        body: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.body = body if body is not None else {"code": code, "message": message}


class Refusals:
    """Counts of refusals by minute, key and reason, until they are written."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[datetime, int, str]] = Counter()

    def add(self, at: datetime, key_id: int, reason: str) -> None:
        """Count one."""
        self._counts[at.replace(second=0, microsecond=0), key_id, reason] += 1

    def take(self) -> list[dict[str, object]]:
        """Return the rows of `edge.refusals` that are not written yet, and begin anew."""
        taken, self._counts = self._counts, Counter()
        return [
            {"minute": minute, "key_id": key_id, "reason": reason, "count": count}
            for (minute, key_id, reason), count in sorted(taken.items())
        ]

    def put_back(self, rows: list[dict[str, object]]) -> None:
        """Count rows again that could not be written."""
        for row in rows:
            self._counts[row["minute"], row["key_id"], row["reason"]] += row["count"]  # type: ignore[index,operator]
