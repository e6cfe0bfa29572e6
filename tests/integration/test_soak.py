"""A short soak; `make soak` is the long one."""

from pathlib import Path

from tests.conftest import SmtpServer
from tests.soak import soak


def test_a_soak_loses_and_doubles_nothing(content: Path, smtp: SmtpServer, tmp_path: Path) -> None:
    outcome = soak(tmp_path, content, smtp, seconds=15, edit_every=4)
    assert outcome.faults == []
    assert int(outcome.figures["mails"]) >= 6
