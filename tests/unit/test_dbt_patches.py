"""What dbt keeps in a process, and what it need not make, changes no answer of its own."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from dbt.clients.jinja import MacroGenerator, MacroStack
from dbt.context.macros import MacroNamespaceBuilder
from dbt.tracking import track_behavior_change_warn
from dbt_common.clients import agate_helper
from dbt_common.clients.jinja import get_template
from dbt_common.events.base_types import EventLevel
from dbt_common.events.event_manager import EventManager
from dbt_common.events.types import Formatting, Note
from dbt_common.exceptions import CompilationError

from upnext import dbt_patches
from upnext.dbt_patches import patch_dbt


class Log:
    """A log of dbt that takes events from a level on."""

    filter = staticmethod(lambda _: True)

    def __init__(self, level: EventLevel) -> None:
        self.level = level
        self.lines: list[str] = []

    def write_line(self, message: Any) -> None:
        self.lines.append(f"{message.info.level}: {message.info.msg}")


@pytest.fixture(autouse=True)
def _patched() -> Iterator[None]:
    patch_dbt()
    yield
    dbt_patches._code.cache_clear()


def manager_with(log: Log) -> EventManager:
    manager = EventManager()
    manager.loggers = [log]  # type: ignore[list-item]
    manager.callbacks = [track_behavior_change_warn]
    return manager


def test_an_event_below_the_level_of_every_log_is_not_made() -> None:
    event = Formatting(msg="a thousand of these at each tick")
    log = Log(EventLevel.INFO)
    manager_with(log).fire_event(event, level=EventLevel.DEBUG)
    assert log.lines == []
    assert "pb_msg" not in vars(event)


@pytest.mark.parametrize(
    ("level", "of_log"), [("info", "info"), ("warn", "info"), ("error", "info"), ("debug", "debug"), ("test", "debug")]
)
def test_any_other_event_is_logged(level: str, of_log: str) -> None:
    log = Log(EventLevel(of_log))
    manager_with(log).fire_event(Note(msg="said"), level=EventLevel(level))
    assert log.lines == [f"{level}: said"]


def test_who_listens_to_a_run_hears_every_event() -> None:
    manager, heard = manager_with(Log(EventLevel.INFO)), list[str]()
    manager.callbacks.append(lambda message: heard.append(message.info.msg))
    manager.fire_event(Note(msg="said"), level=EventLevel.DEBUG)
    assert heard == ["said"]


def test_an_event_has_its_values_when_it_is_asked_for_them() -> None:
    event = Note(msg="said")
    assert (event.msg, event.to_dict()) == ("said", {"msg": "said"})
    assert Formatting("by place").msg == "by place"
    with pytest.raises(AttributeError):
        _ = event.nothing_of_the_kind


@pytest.mark.parametrize("searched", ["ours", "theirs", "dbt", "dbt_postgres"])
def test_macros_are_found_where_dbt_finds_them(searched: str) -> None:
    names = {"ours": "abc", "theirs": "bcd", "dbt": "cde", "dbt_postgres": "def"}
    macros = {
        package: {name: SimpleNamespace(name=name, package_name=package) for name in own}
        for package, own in names.items()
    }

    def builder() -> Any:
        return MacroNamespaceBuilder("ours", searched, MacroStack(), ["dbt_postgres", "dbt"], node="a node")

    context = {"of": "a node"}
    found = builder().build_namespace(macros, context)
    dbts_own = builder()
    for own in macros.values():
        dbts_own.add_macros(own.values(), context)
    assert (macro_of(found.local_namespace), macro_of(found.global_namespace)) == (
        macro_of(dbts_own.locals),
        macro_of(dbts_own.globals),
    )
    assert {name: macro_of(own) for name, own in found.packages.items()} == {
        name: macro_of(own) for name, own in dbts_own.packages.items()
    }
    assert macro_of(found.global_project_namespace) == {
        **macro_of(dbts_own.internal_packages["dbt"]),
        **macro_of(dbts_own.internal_packages["dbt_postgres"]),
    }
    assert vars(found["e"]) == vars(MacroGenerator(macros["dbt_postgres"]["e"], context, "a node", found["e"].stack))
    assert isinstance(found["e"].stack, MacroStack)


def macro_of(namespace: dict[str, Any]) -> dict[str, Any]:
    return {name: generator.macro for name, generator in namespace.items()}


def test_a_text_is_compiled_once_and_rendered_with_what_it_is_given() -> None:
    text = "select '{{ name | upper }}'"
    assert [get_template(text, {"name": name}).render({}) for name in ("a", "b")] == ["select 'A'", "select 'B'"]
    assert (dbt_patches._code.cache_info().misses, dbt_patches._code.cache_info().hits) == (1, 1)


def test_a_value_and_a_text_of_the_same_template_stay_apart() -> None:
    assert get_template("{{ 1 + 1 }}", {}).render({}) == "2"
    assert get_template("{{ (1 + 1) | as_number }}", {}, native=True).render({}) == 2
    assert get_template("{{ (1 + 1) | as_number }}", {}).render({}) == "2"


def test_a_mistake_in_a_text_is_told_each_time() -> None:
    for _ in range(2):
        with pytest.raises(CompilationError, match="unexpected '}'"):
            get_template("{{ a } }}", {})


def test_values_of_a_query_have_the_types_that_dbt_gives_them() -> None:
    rows = [
        {"a": "1", "b": "true", "c": "2026-01-01", "d": ""},
        {"a": "2.5", "b": "false", "c": "2026-01-02", "d": "x"},
    ]
    for _ in range(2):
        table = agate_helper.table_from_data_flat(rows, ["a", "b", "c", "d"])
        assert [type(kind).__name__ for kind in table.column_types] == ["Text", "Text", "Text", "Text"]
        parsed = agate_helper.table_from_data(rows, ["a", "b", "c", "d"])
        assert [type(kind).__name__ for kind in parsed.column_types] == ["Number", "Boolean", "Date", "Text"]
    assert agate_helper.table_from_data_flat([{"a": "null"}], ["a"]).rows[0]["a"] == "null"
    few = agate_helper.table_from_data_flat([{"a": 1, "b": None}], ["a", "b"])
    assert [type(kind).__name__ for kind in few.column_types] == ["Integer", "Integer"]
