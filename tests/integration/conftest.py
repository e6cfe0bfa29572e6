"""Each of these tests runs on the content of the tests."""

from collections.abc import Iterator

import pytest

from tests.conftest import CONTENT


@pytest.fixture(autouse=True, scope="module")
def _content_of_the_tests() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPNEXT_CONTENT", str(CONTENT))
        yield
