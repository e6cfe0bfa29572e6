"""How many events a key may send: a bucket that fills steadily and holds four seconds' worth."""

import math
import time
from collections.abc import Callable

BURST = 4


class Limits:
    """A bucket for each key, in one process."""

    def __init__(self, *, processes: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._processes = processes
        self._clock = clock
        self._buckets: dict[int, tuple[float, float]] = {}

    def take(self, key_id: int, per_second: int, events: int) -> int | None:
        """Take room for some events; or else return the whole seconds after which there is room for them.

        A request with more events than the bucket can hold waits for a full one.
        """
        rate = per_second / self._processes
        room, seen_at = self._buckets.get(key_id, (rate * BURST, self._clock()))
        now = self._clock()
        room = min(rate * BURST, room + (now - seen_at) * rate)
        wanted = min(events, rate * BURST)
        if room >= wanted:
            self._buckets[key_id] = (room - events, now)
            return None
        self._buckets[key_id] = (room, now)
        return max(1, math.ceil((wanted - room) / rate))
