"""The statements of the retention, by name."""

from pathlib import Path

from upnext.warehouse.statements import load

SQL = load(Path(__file__).parent)
