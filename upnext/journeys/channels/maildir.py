"""The local catcher: where no mail server is configured, each message becomes a file of a Maildir."""

import mailbox
import threading
from pathlib import Path

from upnext.errors import UpnextError
from upnext.journeys.channels.channel import Answer, Outcome
from upnext.journeys.copy.message import Rendered

# Names of a Maildir are unique by a counter of the process, which takes no lock.
_ADDING = threading.Lock()


class MaildirConnection:
    """Writes messages into a folder, each whole or not at all; a mail program can open it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failure: UpnextError | None = None

    def open(self) -> None:
        """Make the folder, where there is none. Raises `UpnextError` where that fails, or an earlier message did."""
        if self._failure is not None:
            raise self._failure
        try:
            for name in ("tmp", "new", "cur"):
                (self._folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._failed(error) from None

    def send(self, message: Rendered) -> Answer:
        """Write one message. Raises `UpnextError` where that fails."""
        try:
            with _ADDING:
                mailbox.Maildir(self._folder).add(message.content.replace(b"\r\n", b"\n"))
        except OSError as error:
            raise self._failed(error) from None
        return Answer(Outcome.SENT)

    def close(self) -> None:
        """Do nothing: each message is a file of its own."""

    def _failed(self, error: OSError) -> UpnextError:
        reason = f"no mail can be written to {self._folder} ({error.strerror}): what is due waits"
        self._failure = UpnextError(reason)
        return self._failure
