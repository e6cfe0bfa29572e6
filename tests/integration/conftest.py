"""Each of these tests runs on the content of the tests."""

from collections.abc import Iterator

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
