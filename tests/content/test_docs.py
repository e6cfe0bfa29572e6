"""Tables and pictures of README and guides are those of today: `make pictures` makes them."""

import json
from pathlib import Path

from demo.docs import BLOCKS, PICTURES, SOURCES, block, fingerprints, printed_tables


def test_the_tables_are_what_is_printed_today(tmp_path: Path) -> None:
    printed = printed_tables(tmp_path / "home")
    for page, name in BLOCKS:
        assert block(page.read_text(), name) == printed[name], "make pictures"


def test_the_pictures_show_the_mails_and_pages_of_today() -> None:
    shown = json.loads(SOURCES.read_text())
    assert shown == fingerprints(), "make pictures"
    assert {path.stem for path in PICTURES.glob("*.png")} == set(shown)
