"""Each row of the guide's table of conditions is checked, compiled and evaluated."""

import json
import re
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from tests.conftest import AS_OF
from upnext import conditions
from upnext.project import Project
from upnext.settings import PROJECT

GUIDE = (PROJECT / "docs" / "segments.md").read_text()
EXAMPLE = re.compile(r"`(.+?)`(?:, |$)")


def examples() -> list[tuple[str, str, bool]]:
    """Return each condition of the guide with the properties that it holds for or not."""
    table = re.search(r"\| condition \| holds for .*?\n\n", GUIDE, re.DOTALL)
    assert table is not None
    found = []
    for line in table[0].strip().splitlines()[2:]:
        condition, *cells = (
            cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))
        )
        for cell, holds in zip(cells, (True, False), strict=True):
            found += [(condition.strip("`"), properties, holds) for properties in EXAMPLE.findall(cell)]
    return found


def test_each_condition_of_the_guide_is_right(project: Project) -> None:
    rows = examples()
    assert len(rows) > 60
    instant = f"'{AS_OF.isoformat()}'::timestamptz"
    selects = []
    for condition, properties, _ in rows:
        declared = yaml.safe_load(condition)
        conditions.check_conditions(declared)
        value = "('" + json.dumps(json.loads(properties)) + "'::jsonb)"
        selects.append(f"select {{{{ all_hold({value!r}, {declared!r}, {instant!r}) }}}} as holds")
    compiled = project.dbt.compile("\nunion all\n".join(selects), {})
    with project.engine.connect() as connection:
        got = [bool(holds) for holds in connection.exec_driver_sql(compiled.replace("%", "%%")).scalars()]
    wrong = [(*row, holds) for row, holds in zip(rows, got, strict=True) if row[2] != holds]
    assert wrong == []


def is_relative(declared: Any) -> bool:
    try:
        conditions.check_conditions(declared, may_be_relative=False)
    except ValueError:
        return True
    return False


def test_journeys_evaluate_the_same_conditions_alike(project: Project) -> None:
    declared = [
        (yaml.safe_load(condition), json.loads(properties), holds) for condition, properties, holds in examples()
    ]
    alike = [row for row in declared if not is_relative(row[0])]
    assert len(alike) > 55
    with project.engine.connect() as connection:
        for condition, properties, holds in alike:
            values = {"document": json.dumps(properties), "conditions": json.dumps(condition)}
            query = sa.text("select upnext.holds(cast(:document as jsonb), cast(:conditions as jsonb))")
            assert connection.scalar(query, values) is holds, (condition, properties)


@pytest.mark.parametrize("field", conditions.Test.__struct_encode_fields__)
def test_the_guide_shows_each_test(field: str) -> None:
    assert any(f"{field}:" in condition or field == "equals" for condition, _, _ in examples())
