"""Patches that make dbt's repeated work in one process cheap.

Connections: dbt closes its own after each node, and a new server process has to map every page that it touches: that
was up to two thirds of the time of a small tick. dbt's own bookkeeping takes up a connection that is still open.

Behaviour flags: for each flag, at each run, dbt looks for the module that declares it in every frame of the stack,
with a search through all loaded modules per frame: a third of a build's processor time, for a name in a warning.

Plugins: at each run, dbt looks through all installed packages for its plugins, 20 ms; they do not change in a process.

Macros: at each call, dbt makes the macro anew, with a copy of all names that it can see. Within a node these stay.
Twice for each node, dbt makes an object for each of some 700 macros, by a dozen calls; one call does the same.

Templates: dbt compiles each model and each test anew at each run. Code of a text that was compiled before is kept.

Results: for each query, dbt makes seven parsers of values anew, two of which read a calendar.

Events: dbt turns each of its events into a message and a line of a log, and throws away those below the log's level.
Nobody reads these, so nothing is made of them.

Selection: dbt takes each name that it is given apart for each node, half a second for hundreds of segments. A name of
one word is compared as it is.
"""

import functools
from collections.abc import Iterable, Mapping
from types import CodeType
from typing import Any

from dbt.adapters.postgres.connections import PostgresConnectionManager
from dbt.clients.jinja import MacroGenerator
from dbt.context.macros import MacroNamespace, MacroNamespaceBuilder
from dbt.graph.selector_methods import QualifiedNameSelectorMethod
from dbt.plugins.manager import PluginManager
from dbt.tracking import track_behavior_change_warn
from dbt_common.behavior_flags import BehaviorFlagRendered
from dbt_common.clients import agate_helper
from dbt_common.clients.jinja import (
    BaseMacroGenerator,
    MacroFuzzEnvironment,
    NativeSandboxEnvironment,
    get_environment,
)
from dbt_common.events.base_types import BaseEvent, EventLevel
from dbt_common.events.event_manager import EventManager

_close = PostgresConnectionManager.release
_make_macro = BaseMacroGenerator.get_macro
_compile = MacroFuzzEnvironment.compile
_make_tester = agate_helper.build_type_tester
_make_message = BaseEvent.__init__
_get_field: Any = BaseEvent.__getattr__
_fire = EventManager.fire_event
_is_match = QualifiedNameSelectorMethod.node_is_match
_OF_DEBUGGING = (EventLevel.DEBUG, EventLevel.TEST)
_find_plugins = functools.cache(PluginManager.get_prefixed_modules)


def patch_dbt() -> None:
    """Let dbt keep, in this process, what it would otherwise close, look for or make again."""
    PostgresConnectionManager.release = _end_transaction  # type: ignore[method-assign, assignment]
    PluginManager.get_prefixed_modules = staticmethod(_find_plugins)  # type: ignore[method-assign]
    BaseMacroGenerator.get_macro = _made_once  # type: ignore[method-assign, assignment]
    MacroGenerator.__init__ = _hold  # type: ignore[method-assign, assignment]
    MacroNamespaceBuilder.build_namespace = _namespace  # type: ignore[method-assign, assignment]
    MacroFuzzEnvironment.compile = _compiled_once  # type: ignore[method-assign, assignment]
    agate_helper.build_type_tester = _tester
    BaseEvent.__init__ = _keep_values  # type: ignore[method-assign, assignment]
    BaseEvent.__getattr__ = _get_field_of_message  # type: ignore[method-assign]
    EventManager.fire_event = _fire_if_read  # type: ignore[method-assign, assignment]
    QualifiedNameSelectorMethod.node_is_match = _has_name  # type: ignore[method-assign, assignment]
    BehaviorFlagRendered._default_source = staticmethod(lambda: "dbt")  # type: ignore[method-assign]


def _made_once(generator: Any) -> Any:
    made = vars(generator).get("upnext_made")
    if made is None:
        made = generator.upnext_made = _make_macro(generator)
    return made


def _hold(generator: Any, macro: Any, context: Any = None, node: Any = None, stack: Any = None) -> None:
    generator.context = context
    generator.macro = macro
    generator.node = node
    generator.stack = stack


def _namespace(builder: Any, macros: Mapping[str, Mapping[str, Any]], context: Any) -> MacroNamespace:
    made = {
        package: {name: MacroGenerator(macro, context, builder.node, builder.thread_ctx) for name, macro in own.items()}
        for package, own in macros.items()
    }
    shared: dict[str, MacroGenerator] = {}
    for package in reversed(builder.internal_package_names_order):
        shared |= made.get(package, {})
    packages = {name: own for name, own in made.items() if name not in builder.internal_package_names}
    is_root = builder.search_package == builder.root_package
    return MacroNamespace(
        local_namespace=packages.get(builder.search_package, {}),
        global_namespace={} if is_root else packages.get(builder.root_package, {}),
        global_project_namespace=shared,
        packages=packages,
    )


def _compiled_once(environment: Any, source: Any, *arguments: Any, **options: Any) -> Any:
    if not isinstance(source, str) or arguments or options:
        return _compile(environment, source, *arguments, **options)
    return _code(source, is_native=isinstance(environment, NativeSandboxEnvironment))


@functools.lru_cache(maxsize=2_000)
def _code(source: str, *, is_native: bool) -> CodeType:
    return _compile(get_environment(native=is_native), source)


def _tester(text_columns: Iterable[str], string_null_values: Iterable[str] | None = ("null", "")) -> Any:
    return _tester_of(tuple(text_columns), tuple(string_null_values or ()))


@functools.lru_cache(maxsize=2_000)
def _tester_of(text_columns: tuple[str, ...], string_null_values: tuple[str, ...]) -> Any:
    return _make_tester(text_columns, string_null_values)


def _keep_values(event: Any, *arguments: Any, **values: Any) -> None:
    vars(event)["upnext_values"] = arguments, values


def _get_field_of_message(event: Any, name: str) -> Any:
    if "pb_msg" not in vars(event):
        arguments, values = vars(event)["upnext_values"]
        _make_message(event, *arguments, **values)
    return event.pb_msg if name == "pb_msg" else _get_field(event, name)


def _fire_if_read(manager: Any, event: Any, level: Any = None, *arguments: Any, **options: Any) -> None:
    is_of_debugging = (level or event.level_tag()) in _OF_DEBUGGING
    is_logged = any(logger.level in _OF_DEBUGGING for logger in manager.loggers)
    if not is_of_debugging or is_logged or manager.callbacks != [track_behavior_change_warn]:
        _fire(manager, event, level, *arguments, **options)


def _has_name(method: Any, name: str, fqn: list[str], is_versioned: bool) -> bool:
    if is_versioned or not name.isidentifier():
        return _is_match(method, name, fqn, is_versioned)
    return name in (fqn[-1], fqn[0].split(".")[0], fqn[1].split(".")[0])


def _end_transaction(manager: Any) -> None:
    connection = manager.get_if_exists()
    if connection is None or connection.state != "open":
        _close(manager)
        return
    connection.handle.rollback()
    connection.transaction_open = False
