"""Patches that make dbt's repeated work in one process cheap.

Connections: dbt closes its own after each node, and a new server process has to map every page that it touches: that
was up to two thirds of the time of a small tick. dbt's own bookkeeping takes up a connection that is still open.

Behaviour flags: for each flag, at each run, dbt looks for the module that declares it in every frame of the stack,
with a search through all loaded modules per frame: a third of a build's processor time, for a name in a warning.

Plugins: at each run, dbt looks through all installed packages for its plugins, 20 ms; they do not change in a process.

Macros: at each call, dbt makes the macro anew, with a copy of all names that it can see. Within a node these stay.

Selection: dbt takes each name that it is given apart for each node, half a second for hundreds of segments. A name of
one word is compared as it is.
"""

import functools
from typing import Any

from dbt.adapters.postgres.connections import PostgresConnectionManager
from dbt.graph.selector_methods import QualifiedNameSelectorMethod
from dbt.plugins.manager import PluginManager
from dbt_common.behavior_flags import BehaviorFlagRendered
from dbt_common.clients.jinja import BaseMacroGenerator

_close = PostgresConnectionManager.release
_make_macro = BaseMacroGenerator.get_macro
_is_match = QualifiedNameSelectorMethod.node_is_match
_find_plugins = functools.cache(PluginManager.get_prefixed_modules)


def patch_dbt() -> None:
    """Let dbt keep, in this process, what it would otherwise close, look for or make again."""
    PostgresConnectionManager.release = _end_transaction  # type: ignore[method-assign, assignment]
    PluginManager.get_prefixed_modules = staticmethod(_find_plugins)  # type: ignore[method-assign]
    BaseMacroGenerator.get_macro = _made_once  # type: ignore[method-assign, assignment]
    QualifiedNameSelectorMethod.node_is_match = _has_name  # type: ignore[method-assign, assignment]
    BehaviorFlagRendered._default_source = staticmethod(lambda: "dbt")  # type: ignore[method-assign]


def _made_once(generator: Any) -> Any:
    made = vars(generator).get("upnext_made")
    if made is None:
        made = generator.upnext_made = _make_macro(generator)
    return made


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
