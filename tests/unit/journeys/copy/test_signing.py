"""The keys that sign links: given, or made once and kept."""

from pathlib import Path

import pytest

from upnext.errors import UpnextError
from upnext.journeys.copy.signing import signing_keys
from upnext.settings import Settings


def test_keys_are_those_given_newest_first(tmp_path: Path) -> None:
    environment = {"UPNEXT_HOME": str(tmp_path), "UPNEXT_SIGNING_KEYS": "new, old"}
    assert signing_keys(Settings.from_environment(environment)) == ["new", "old"]
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_made_once_and_kept_to_oneself(tmp_path: Path) -> None:
    settings = Settings.from_environment({"UPNEXT_HOME": str(tmp_path / "home")})
    (key,) = signing_keys(settings)
    assert signing_keys(settings) == [key]
    assert len(key) >= 32
    assert (tmp_path / "home" / "signing_keys").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["signing_keys"]


def test_an_empty_file_of_keys_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "signing_keys").touch()
    with pytest.raises(UpnextError, match="signing_keys is empty; put back what it held"):
        signing_keys(Settings.from_environment({"UPNEXT_HOME": str(tmp_path)}))
