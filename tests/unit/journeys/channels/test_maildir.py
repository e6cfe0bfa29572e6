"""The local catcher: files that a mail program reads."""

import mailbox
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from upnext.errors import UpnextError
from upnext.journeys.channels.channel import Outcome
from upnext.journeys.channels.maildir import MaildirConnection
from upnext.journeys.copy.message import Rendered

CONTENT = "To: ada@customer.example\r\nSubject: Hi\r\n\r\n.dot\r\nFrom Zoë\r\n".encode()


def opened(folder: Path) -> MaildirConnection:
    connection = MaildirConnection(folder)
    connection.open()
    return connection


def test_a_mail_is_a_file_as_it_would_go_out(tmp_path: Path) -> None:
    connection = opened(tmp_path / "home" / "mail")
    assert connection.send(Rendered("m-1", CONTENT)).outcome is Outcome.SENT
    connection.close()
    (mail,) = (tmp_path / "home" / "mail" / "new").iterdir()
    assert mail.read_bytes() == CONTENT.replace(b"\r\n", b"\n")
    (read,) = mailbox.Maildir(tmp_path / "home" / "mail", create=False)
    assert read["Subject"] == "Hi"
    assert [path.stat().st_mode & 0o077 for path in (tmp_path / "home" / "mail").iterdir()] == [0, 0, 0]


@pytest.fixture
def _threads_that_change_at_any_point() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_threads_that_change_at_any_point")
def test_many_in_one_microsecond_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.0)

    def send(sender: int) -> None:
        connection = opened(tmp_path / "mail")
        for nth in range(50):
            connection.send(Rendered("m", f"Subject: {sender} {nth}\r\n\r\n".encode()))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))
    subjects = [message["Subject"] for message in mailbox.Maildir(tmp_path / "mail", create=False)]
    assert sorted(subjects) == sorted(f"{sender} {nth}" for sender in range(8) for nth in range(50))


def test_what_cannot_be_written_is_told_and_stays_so(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("in the way")
    told = f"no mail can be written to {tmp_path / 'mail'} "
    with pytest.raises(UpnextError, match=told):
        opened(tmp_path / "mail")
    connection = opened(tmp_path / "other")
    (tmp_path / "other" / "tmp").rmdir()
    with pytest.raises(UpnextError, match=r"other \(No such file or directory\): what is due waits"):
        connection.send(Rendered("m-1", CONTENT))
    with pytest.raises(UpnextError, match="what is due waits"):
        connection.open()
