"""Patches that make dbt's repeated work in one process cheap.

Connections: dbt closes its own after each node, and a new server process has to map every page that it touches: that
was two thirds of the time of a small tick. dbt's own bookkeeping takes up a connection that is still open.

Behaviour flags: for each flag, at each run, dbt looks for the module that declares it in every frame of the stack,
with a search through all loaded modules per frame: a third of a build's processor time, for a name in a warning.

Plugins: at each run, dbt looks through all installed packages for its plugins, 20 ms; they do not change in a process.
"""

import functools
from typing import Any

from dbt.adapters.postgres.connections import PostgresConnectionManager
from dbt.plugins.manager import PluginManager
from dbt_common.behavior_flags import BehaviorFlagRendered

_close = PostgresConnectionManager.release
_find_plugins = functools.cache(PluginManager.get_prefixed_modules)


def patch_dbt() -> None:
    """Let dbt, in this process, keep its connection from node to node, and not look for where its flags come from."""
    PostgresConnectionManager.release = _end_transaction  # type: ignore[method-assign, assignment]
    PluginManager.get_prefixed_modules = staticmethod(_find_plugins)  # type: ignore[method-assign]
    BehaviorFlagRendered._default_source = staticmethod(lambda: "dbt")  # type: ignore[method-assign]


def _end_transaction(manager: Any) -> None:
    connection = manager.get_if_exists()
    if connection is None or connection.state != "open":
        _close(manager)
        return
    connection.handle.rollback()
    connection.transaction_open = False
