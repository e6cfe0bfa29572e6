"""The columns that the UI and the documentation show are those that the schema declares."""

from upnext.warehouse.columns import columns


def test_tables_and_their_changes_since() -> None:
    found = columns()
    assert found["segments.ticks"] == {
        "tick_id": "bigint", "as_of": "timestamptz", "published_at": "timestamptz", "holder": "int",
    }  # fmt: skip
    assert found["segments.evaluations"]["text_hash"] == "text", "a migration has added it"
    assert "of_step" not in found["journeys.steps"], "a migration has dropped it"
