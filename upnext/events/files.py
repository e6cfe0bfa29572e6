"""The files to load, and their content, decompressed and bounded."""

import hashlib
import io
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from upnext.errors import UpnextError, nearest

UNFINISHED = (".tmp", ".part", ".crdownload")
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}
# Events compress by 5 to 30. Files that grow by more than this are refused.
MAX_GROWTH = 200
GROWTH_COUNTS_FROM = 8 * 1024 * 1024
BLOCK = 1024 * 1024


class Refused(Exception):  # noqa: N818 - an outcome, not a failure
    """A file that cannot be loaded as a whole, and why."""


@dataclass(frozen=True)
class LandedFile:
    """A file to load, in its state when listed; `refusal` is the reason not to load it.

    `changed_at` is when the system last changed the inode: unlike `modified_at`, no program can set it.
    """

    source: str
    path: Path
    size: int
    modified_at: datetime
    inode: int = 0
    changed_at: datetime | None = None
    refusal: str | None = None

    @property
    def name(self) -> str:
        """The path as text that can be stored and shown, also where its bytes are no UTF-8."""
        return os.fsencode(self.path).decode(errors="backslashreplace")


def find_files(paths: Iterable[Path], *, source: str) -> list[LandedFile]:
    """List the files at or below `paths`, in the order of their names; hidden and unfinished ones are left out."""
    found: list[LandedFile] = []
    for path in paths:
        if not path.exists():
            raise UpnextError(f"no such file or folder: {path}")
        if not path.is_dir() and not path.is_file():
            raise UpnextError(f"not a file or a folder: {path}")
        if path.is_file() and _is_unfinished(path, path):
            raise UpnextError(f"{path}: is hidden, or named as what is not whole yet; rename it to load it")
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        found += [_seen(file.resolve(), source) for file in files if not _is_unfinished(file, path)]
    return found


def find_landed(landing: Path, sources: Collection[str]) -> list[LandedFile]:
    """List the files in the landing folder; its first level names the source. Misplaced files have a refusal."""
    if not landing.is_dir():
        return []
    root = Path(os.path.realpath(landing))
    return [file for entry in sorted(landing.iterdir()) for file in _landed(entry, root, sources)]


def _landed(entry: Path, root: Path, sources: Collection[str]) -> Iterator[LandedFile]:
    source = entry.name
    if _is_unfinished(entry, root=entry):
        return
    if not _leads_to(entry).is_relative_to(root):
        yield _seen(entry, source, refusal="a link that leads out of the landing folder")
    elif not entry.is_dir():
        yield _seen(entry, "", refusal="lies beside the folders of the sources; move it to segment/, or to its own")
    elif source not in sources:
        yield _seen(entry, source, refusal=f"the folder names no source{nearest(source, sources)}")
    else:
        for file in sorted(entry.rglob("*")):
            if _is_unfinished(file, entry):
                continue
            if not _leads_to(file).is_relative_to(root):
                yield _seen(file, source, refusal="a link that leads out of the landing folder")
            elif file.is_file():
                yield _seen(_leads_to(file), source)
            elif file.is_symlink():
                yield _seen(file, source, refusal="a link that leads to no file")


def refuse_other_formats(files: Iterable[LandedFile]) -> None:
    """Raise `UpnextError` for a file in which nothing looks like JSON, before anything is loaded."""
    for file in files:
        try:
            with Content(file.path).open() as stream:
                lines = [line.lstrip(b"\xef\xbb\xbf \t\r\n") for line in stream.read(BLOCK).split(b"\n")]
        except Refused:
            continue
        begun = [line for line in lines if line]
        if begun and not any(line[:1] == b"{" for line in begun):
            raise UpnextError(
                f"{file.path}:1: not JSON lines, each an object; any other file needs --source, the name of a file in"
                " sources/ that says how to read it"
            )


@dataclass(frozen=True)
class Measured:
    """Size and fingerprint (SHA-256) of a file's content; `prefix` is that of its first `mark` bytes.

    `prefix` is None where the content is shorter, or where `mark` is in the middle of a line.
    """

    size: int
    fingerprint: str
    prefix: str | None


class Content:
    """A file's bytes, decompressed where it is gzip or zstd, whatever its name says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as stream:
            self._compression = COMPRESSIONS.get(stream.read(2))

    @property
    def is_compressed(self) -> bool:
        """Whether the bytes of the file are others than those of its content."""
        return self._compression is not None

    @contextmanager
    def open(self, *, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        """Yield the bytes from `start` to `stop`. Reading raises `Refused` where they cannot be decompressed."""
        with self.path.open("rb") as plain:
            if self._compression is None:
                plain.seek(start)
                raw = _Bounded(plain.read, stop=None if stop is None else stop - start)
                yield cast(BinaryIO, io.BufferedReader(raw, BLOCK))
            else:
                packed = pa.CompressedInputStream(pa.PythonFile(plain, "r"), self._compression)
                reader = io.BufferedReader(_Bounded(self._unpacking(packed), stop=stop), BLOCK)
                while start > 0 and (skipped := reader.read(min(start, BLOCK))):
                    start -= len(skipped)
                yield cast(BinaryIO, reader)

    def measure(self, *, mark: int | None = None) -> Measured:
        """Read all of the content once. Raises `Refused`."""
        digest, size, prefix, before = hashlib.sha256(), 0, None, b"\n"
        with self.open() as stream:
            while block := stream.read(BLOCK):
                if mark is not None and size <= mark < size + len(block):
                    at = mark - size
                    around = (block[at - 1 : at] or before, block[at : at + 1])
                    head = digest.copy()
                    head.update(block[:at])
                    prefix = head.hexdigest() if around[0] == b"\n" or around[1] in b"\r\n" else None
                digest.update(block)
                size += len(block)
                before = block[-1:]
        return Measured(size, digest.hexdigest(), digest.hexdigest() if mark == size else prefix)

    def _unpacking(self, packed: Any) -> Callable[[int], bytes]:
        most = max(MAX_GROWTH * self.path.stat().st_size, GROWTH_COUNTS_FROM)
        unpacked = 0

        def read(count: int) -> bytes:
            nonlocal unpacked
            try:
                block: bytes = packed.read(count)
            except OSError as error:
                raise Refused(f"cannot be unpacked as {self._compression}: {error}") from None
            unpacked += len(block)
            if unpacked > most:
                raise Refused(f"unpacks to more than {MAX_GROWTH} times its size")
            return block

        return read


class _Bounded(io.RawIOBase):
    """A raw stream over a read function that ends after `stop` bytes."""

    def __init__(self, read: Callable[[int], bytes], *, stop: int | None) -> None:
        self._read = read
        self._left = stop

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = len(buffer) if self._left is None else min(len(buffer), self._left)
        block = self._read(count)
        buffer[: len(block)] = block
        if self._left is not None:
            self._left -= len(block)
        return len(block)


def _seen(path: Path, source: str, refusal: str | None = None) -> LandedFile:
    status = path.stat() if refusal is None else path.lstat()
    modified_at, changed_at = (
        datetime.fromtimestamp(0, UTC) + timedelta(microseconds=nanoseconds // 1000)
        for nanoseconds in (status.st_mtime_ns, status.st_ctime_ns)
    )
    return LandedFile(source, path, status.st_size, modified_at, status.st_ino, changed_at, refusal)


def _is_unfinished(file: Path, root: Path) -> bool:
    below = file.relative_to(root).parts if file != root else (file.name,)
    return file.suffix in UNFINISHED or any(part.startswith(".") for part in below)


def _leads_to(path: Path) -> Path:
    return Path(os.path.realpath(path))
