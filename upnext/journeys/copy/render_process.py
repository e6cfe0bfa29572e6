"""Rendering in a process of its own, with limits of processor time and memory: a template cannot stop the dispatch.

Run as a module it reads a `Sender` and then `Request`s from standard input, and answers each with a `Rendered`, in
frames of four bytes of length and JSON, which holds numbers of any size, as traits do. The operating system ends the
process where a message goes beyond the limits. Where it ends for another reason the message is not to blame.
"""

import resource
import signal
import struct
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, cast

import msgspec

from upnext.errors import UpnextError
from upnext.journeys.copy.message import Rendered, Request, Sender
from upnext.journeys.copy.rendering import render

PROCESSOR_SECONDS = 2
MEMORY_BYTES = 1 << 30
MAX_DEATHS = 3
# How the operating system ends a process that takes too much time, and how an allocation that fails ends it.
_LIMITS = (-signal.SIGXCPU, -signal.SIGABRT)
_LENGTH = struct.Struct(">I")


class RenderProcess:
    """Renders messages one by one; where the process dies of one, that one has a reason and a new process goes on."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._failures = 0

    def __enter__(self) -> "RenderProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def render(self, request: Request) -> Rendered | None:
        """Return the rendered message, or the reason why there is none; None where it can be tried again later.

        Never raises for what a template does. Raises `UpnextError` where the process cannot do its work at all: it
        ended several times in a row, and no message was to blame.
        """
        step = (request.journey, request.step["name"])
        reason = (
            f"step {request.step['name']}: takes more than {PROCESSOR_SECONDS} s of processor time"
            f" or {MEMORY_BYTES >> 20} MB of memory"
        )
        if self._deaths[step] >= MAX_DEATHS:
            return Rendered(request.message_id, reason=reason)
        answer = self._ask(request)
        if answer is not None:
            self._failures = 0
            return msgspec.json.decode(answer, type=Rendered)
        status = self._end()
        if status in _LIMITS:
            self._deaths[step] += 1
            return Rendered(request.message_id, reason=reason)
        self._failures += 1
        if self._failures >= MAX_DEATHS:
            raise UpnextError(f"the process that writes messages ended with status {status}: what is due waits")
        return None

    def _ask(self, request: Request) -> bytes | None:
        """Return the answer of the process, which is started where there is none; None where it has ended."""
        try:
            if self._process is None:
                command = [sys.executable, "-m", __name__]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                _write(cast("IO[bytes]", self._process.stdin), self._sender)
            _write(cast("IO[bytes]", self._process.stdin), request)
            return _read(cast("IO[bytes]", self._process.stdout))
        except BrokenPipeError:
            return None

    def _end(self) -> int | None:
        """Return the status of the process, which has closed its output or has no more to do; it is there no more."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        # What it has not read is of no use any more.
        with suppress(BrokenPipeError):
            cast("IO[bytes]", process.stdin).close()
        cast("IO[bytes]", process.stdout).close()
        try:
            return process.wait(PROCESSOR_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def main() -> None:
    """Answer requests until standard input ends."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    head = _read(source)
    if head is None:
        return
    sender = msgspec.json.decode(head, type=Sender)
    while (frame := _read(source)) is not None:
        # The limit is on the sum so far: each message has its own time on top.
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = int(usage.ru_utime + usage.ru_stime)
        resource.setrlimit(resource.RLIMIT_CPU, (used + 1 + PROCESSOR_SECONDS, resource.RLIM_INFINITY))
        _write(target, render(msgspec.json.decode(frame, type=Request), sender))


def _write(stream: IO[bytes], value: Any) -> None:
    frame = msgspec.json.encode(value)
    stream.write(_LENGTH.pack(len(frame)) + frame)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    """Return the next frame; None at the end of the stream."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    frame: bytes = stream.read(length)
    return frame if len(frame) == length else None


if __name__ == "__main__":
    main()
