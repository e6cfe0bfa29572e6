"""Rendering in a process of its own, with limits of processor time and memory: a template cannot stop the dispatch.

Run as a module it reads a `Sender` and then `Request`s from standard input, and answers each with a `Rendered`, in
frames of four bytes of length and MessagePack. The operating system ends it where a message goes beyond the limits.
"""

import resource
import struct
import subprocess
import sys
from collections import Counter
from types import TracebackType
from typing import IO, Any, cast

import msgspec

from assets.journeys.rendering import Rendered, Request, Sender, render

PROCESSOR_SECONDS = 2
MEMORY_BYTES = 1 << 30
MAX_DEATHS = 3
_LENGTH = struct.Struct(">I")


class RenderProcess:
    """Renders messages one by one; where the process dies of one, that one has a reason and a new process goes on."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths: Counter[tuple[str, str]] = Counter()

    def __enter__(self) -> "RenderProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def render(self, request: Request) -> Rendered:
        """Return the rendered message, or the reason why there is none. Never raises for what a template does."""
        step = (request.journey, request.step["name"])
        reason = (
            f"step {request.step['name']}: takes more than {PROCESSOR_SECONDS} s of processor time"
            f" or {MEMORY_BYTES >> 20} MB of memory"
        )
        if self._deaths[step] >= MAX_DEATHS:
            return Rendered(request.message_id, reason=reason)
        source, target = self._pipes()
        try:
            _write(target, request)
            answer = _read(source)
        except BrokenPipeError:
            answer = None
        if answer is None:
            self._end()
            self._deaths[step] += 1
            return Rendered(request.message_id, reason=reason)
        return msgspec.msgpack.decode(answer, type=Rendered)

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        """Return where the process answers, and where it reads; it is started where there is none."""
        if self._process is None:
            command = [sys.executable, "-m", __name__]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            _write(cast("IO[bytes]", self._process.stdin), self._sender)
        return cast("IO[bytes]", self._process.stdout), cast("IO[bytes]", self._process.stdin)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def main() -> None:
    """Answer requests until standard input ends."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    head = _read(source)
    if head is None:
        return
    sender = msgspec.msgpack.decode(head, type=Sender)
    while (frame := _read(source)) is not None:
        # The limit is on the sum so far: each message has its own time on top.
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = int(usage.ru_utime + usage.ru_stime)
        resource.setrlimit(resource.RLIMIT_CPU, (used + 1 + PROCESSOR_SECONDS, resource.RLIM_INFINITY))
        _write(target, render(msgspec.msgpack.decode(frame, type=Request), sender))


def _write(stream: IO[bytes], value: Any) -> None:
    frame = msgspec.msgpack.encode(value)
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
