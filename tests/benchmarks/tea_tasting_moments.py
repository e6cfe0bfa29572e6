"""What tea-tasting takes for the same rows from Parquet, in an environment of its own; printed as JSON."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ibis
import pyarrow.parquet
import tea_tasting as tt


def main(folder: Path, metrics: int, rounds: int) -> None:
    """Analyse `metrics` with their pre-periods, by each way that tea-tasting has to read the file."""
    names = [f"m{number:02d}" for number in range(metrics)]
    experiment = tt.Experiment({name: tt.Mean(name, f"{name}__before") for name in names}, variant="arm")
    columns = ["arm", *names, *(f"{name}__before" for name in names)]
    rows, exposures, outcomes = (folder / f"{name}.parquet" for name in ("rows", "exposures", "outcomes"))

    def joined() -> Any:
        duckdb = ibis.duckdb.connect()
        return duckdb.read_parquet(exposures).join(duckdb.read_parquet(outcomes), "user_id")

    ways: dict[str, Callable[[], Any]] = {
        "DuckDB, joined by it": joined,
        "DuckDB": lambda: ibis.duckdb.connect().read_parquet(rows),
        "PyArrow": lambda: pyarrow.parquet.read_table(rows, columns=columns),
        "pandas": lambda: pyarrow.parquet.read_table(rows, columns=columns).to_pandas(),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    effects: dict[str, float] = {}
    for _ in range(rounds):
        for way, read in ways.items():
            started = time.perf_counter()
            result = experiment.analyze(read(), control="control")
            seconds[way].append(time.perf_counter() - started)
            effects = {name: result[name].effect_size for name in names}
    print(json.dumps({"seconds": seconds, "effects": effects}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
