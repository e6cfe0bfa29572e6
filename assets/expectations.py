"""The bridge from Great Expectations to asset checks: expectations run in SQL and return counts, never values."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from sqlalchemy.engine import URL


def expect(
    url: URL,
    *,
    schema: str,
    table: str,
    expectations: Mapping[str, Any],
    query: str | None = None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dict[str, dg.AssetCheckResult]:
    """Validate a table, or the rows of a query under that name, and return a result per name of `expectations`.

    Results do not keep the order of the expectations, so each carries its name in `meta`. The result distinguishes
    an expectation that could not run (a missing column) from one that failed.
    """
    import great_expectations as gx  # noqa: PLC0415 - six seconds that only a check should pay
    from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: PLC0415

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    # Great Expectations requires a host even if the query of the URL names a socket's folder.
    scoped = url.set(drivername="postgresql+psycopg2", host=url.host or "localhost")
    scoped = scoped.update_query_dict({"options": f"-csearch_path={schema}"})
    source = context.data_sources.add_postgres(
        "warehouse", connection_string=scoped.render_as_string(hide_password=False)
    )
    # A query has to start with SELECT.
    asset = (
        source.add_table_asset(table, table_name=table)
        if query is None
        else source.add_query_asset(table, f"SELECT * FROM ({query}) AS {table}")  # noqa: S608
    )
    batch = asset.add_batch_definition_whole_table("all").get_batch()
    suite = gx.ExpectationSuite(name=table)
    for name, expectation in expectations.items():
        expectation.meta = {"name": name}
        suite.add_expectation(expectation)
    validated = batch.validate(suite, result_format="BASIC")
    checks = [_as_check(result, severity) for result in validated.results]
    return {check.check_name or "": check for check in checks}


def _as_check(result: Any, severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    name = result.expectation_config.meta["name"]
    raised = [info["exception_message"] for info in _exceptions(result.exception_info)]
    if raised:
        return dg.AssetCheckResult(
            check_name=name,
            passed=False,
            severity=severity,
            description=f"the check itself is broken: {raised[0].splitlines()[0]}",
        )
    counts = {
        key: value
        for key, value in result.result.items()
        if key in ("element_count", "unexpected_count", "observed_value") and isinstance(value, int | float)
    }
    return dg.AssetCheckResult(check_name=name, passed=bool(result.success), severity=severity, metadata=counts)


def _exceptions(info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One expectation reports either one record, or one for each metric that it needed."""
    records = [info] if "raised_exception" in info else list(info.values())
    return [record for record in records if record["raised_exception"]]
