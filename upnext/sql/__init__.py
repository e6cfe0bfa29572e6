"""The statements of the status, the switches, tombstones and the origin, by name."""

from pathlib import Path

from upnext.warehouse.statements import load

SQL = load(Path(__file__).parent)
