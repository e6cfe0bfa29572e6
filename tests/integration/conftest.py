"""Each of these tests runs on the content of the tests."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CONTENT, Product
from tests.journeys import Journeys
from upnext.journeys.policy import Policy
from upnext.project import Project


@pytest.fixture(autouse=True, scope="module")
def _content_of_the_tests() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPNEXT_CONTENT", str(CONTENT))
        yield


@pytest.fixture
def journeys(ticked: Project) -> Journeys:
    """A warehouse with one tick, and an outbox without rules of the policy."""
    ticked.policy = Policy()
    return Journeys(ticked, Product(ticked, stored_already=1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 140 MB in memory, where the test may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=140m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk, and only where mounting is allowed")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S607
