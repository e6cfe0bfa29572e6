"""The keys that sign links: given, or made once and kept."""

from pathlib import Path

from orchestration.settings import Settings
from orchestration.signing import signing_keys


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
