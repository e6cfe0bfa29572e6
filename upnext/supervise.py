"""Programs that are kept at work: one that ends without being told to is started again."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

LOOKS_EVERY = 1.0
"""Seconds between two looks at the programs."""
ENDS_WITHIN = 30.0
"""Seconds that a program has to end when it is told to."""
COMES_UP_WITHIN = 60.0
"""Seconds in which nobody asks a program whether it is well."""
UNWELL_LOOKS = 3
"""A program that does not answer at so many looks in a row is killed."""
TOO_SOON = 10.0
"""Seconds: a program that has ended sooner so often in a row (`MOST_TRIES`) will not come up."""
MOST_TRIES = 3


@dataclass
class Program:
    """A program with the processes that it starts, in a process group of their own."""

    name: str
    command: Sequence[str | Path]
    environment: Mapping[str, str]
    folder: Path | None = None
    is_well: Callable[[], bool] = lambda: True
    _process: subprocess.Popen[bytes] | None = None
    _started_at: float = 0
    _failures: int = field(default=0, init=False)
    _unwell: int = field(default=0, init=False)

    def start(self) -> None:
        """Start it. Ctrl-C does not reach it: whoever keeps it ends it."""
        self._process = subprocess.Popen(self.command, env=self.environment, cwd=self.folder, process_group=0)
        self._started_at, self._unwell = time.monotonic(), 0

    def end(self) -> None:
        """Tell all its processes to end, as Ctrl-C would, and wait; kill what has not ended then."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._end_group()

    def ended(self) -> int | None:
        """Return the status with which it has ended, or was killed because it was not well; None while it runs."""
        if self._process is None:
            return None
        if self._process.poll() is None and time.monotonic() - self._started_at > COMES_UP_WITHIN:
            self._unwell = 0 if self.is_well() else self._unwell + 1
            if self._unwell >= UNWELL_LOOKS:
                self._process.kill()
                self._process.wait()
        return self._process.poll()

    def start_again(self) -> bool:
        """Start it anew without what is left of it; False where it has failed too often."""
        self._failures = self._failures + 1 if time.monotonic() - self._started_at < TOO_SOON else 0
        if self._failures >= MOST_TRIES:
            return False
        self._end_group()
        self.start()
        return True

    def _end_group(self) -> None:
        """End the processes that it has left behind: another one would find its place taken."""
        if self._process is None:
            return
        self._process.wait()
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + ENDS_WITHIN / 3
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
                while time.monotonic() < deadline:
                    time.sleep(0.1)
                    os.killpg(self._process.pid, 0)


def keep(
    programs: Sequence[Program],
    *,
    stop: threading.Event,
    look: Callable[[], None],
    tell: Callable[[str], None],
) -> int:
    """Run the programs until `stop`, and return 0; or until one of them does not come up, and return its status.

    `look` is called before each look at them; `tell` hears of each program that is started again.
    """
    for program in programs:
        program.start()
    try:
        while not stop.wait(LOOKS_EVERY):
            look()
            for program in programs:
                status = program.ended()
                if status is None:
                    continue
                if not program.start_again():
                    return status or 1
                tell(f"{program.name} has ended with status {status}, and is started again")
    finally:
        # Those that were started last need the others.
        for program in reversed(programs):
            program.end()
    return 0
