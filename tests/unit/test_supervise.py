"""Programs that are kept at work: real processes that end, hang, or never come up."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from upnext import supervise
from upnext.supervise import Program, keep

CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "LOOKS_EVERY", 0.02)
    monkeypatch.setattr(supervise, "COMES_UP_WITHIN", 0.0)


def program(code: str, is_well: Callable[[], bool] = lambda: True) -> Program:
    return Program("it", [sys.executable, "-c", code], dict(os.environ), is_well=is_well)


def lines(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def noting(path: Path, then: str) -> str:
    return f"import os, time; open({str(path)!r}, 'a').write(f'{{os.getpid()}}\\n'); {then}"


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_that_is_killed_is_started_again_without_what_it_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "TOO_SOON", 0.0)
    path, stop, told = tmp_path / "pids", threading.Event(), []

    def look() -> None:
        pids = lines(path)
        if len(pids) == 1:
            with suppress(ProcessLookupError):
                os.kill(pids[0], signal.SIGKILL)
        elif len(pids) == 2:
            stop.set()

    assert keep([program(noting(path, CHILD + "time.sleep(600)"))], stop=stop, look=look, tell=told.append) == 0
    assert told == ["it has ended with status -9, and is started again"]
    assert not any(map(is_alive, lines(path))), "neither they nor their children"


def test_one_that_never_comes_up_ends_all(tmp_path: Path) -> None:
    path, other = tmp_path / "pids", tmp_path / "other"
    kept = [program(noting(other, "time.sleep(600)")), program(noting(path, "raise SystemExit(3)"))]
    assert keep(kept, stop=threading.Event(), look=lambda: None, tell=lambda _: None) == 3
    assert len(lines(path)) == supervise.MOST_TRIES
    assert not any(map(is_alive, lines(other)))


def test_one_that_does_not_answer_is_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "TOO_SOON", 0.0)
    path, stop = tmp_path / "pids", threading.Event()

    def look() -> None:
        if len(lines(path)) == 2:
            stop.set()

    sick = program(noting(path, "time.sleep(600)"), is_well=lambda: len(lines(path)) != 1)
    assert keep([sick], stop=stop, look=look, tell=lambda _: None) == 0
    assert len(lines(path)) == 2


def test_whoever_does_not_hear_is_killed_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "ENDS_WITHIN", 0.3)
    path, stop = tmp_path / "pids", threading.Event()
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + noting(path, "time.sleep(600)")

    def look() -> None:
        if lines(path):
            stop.set()

    assert keep([program(deaf)], stop=stop, look=look, tell=lambda _: None) == 0
    assert not any(map(is_alive, lines(path)))
