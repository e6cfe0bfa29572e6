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


def main(folder: Path, metrics: int) -> None:
    """Analyse `metrics` with their pre-periods once for each line that comes in, by each way to read the files."""
    names = [f"m{number:02d}" for number in range(metrics)]
    experiment = tt.Experiment({name: tt.Mean(name, f"{name}__before") for name in names}, variant="arm")
    columns = ["arm", *names, *(f"{name}__before" for name in names)]
    rows, exposures, outcomes = (folder / f"{name}.parquet" for name in ("rows", "exposures", "outcomes"))

    def joined() -> Any:
        duckdb = ibis.duckdb.connect()
        return duckdb.read_parquet(exposures).join(duckdb.read_parquet(outcomes), "user_id")

    ways: dict[str, Callable[[], Any]] = {
        "DuckDB, which joins": joined,
        "DuckDB, joined before": lambda: ibis.duckdb.connect().read_parquet(rows),
        "PyArrow, joined before": lambda: pyarrow.parquet.read_table(rows, columns=columns),
        "pandas, joined before": lambda: pyarrow.parquet.read_table(rows, columns=columns).to_pandas(),
    }
    for line in sys.stdin:
        seconds: dict[str, float] = {}
        for way, read in ways.items():
            started = time.perf_counter()
            result = experiment.analyze(read(), control="control")
            seconds[way] = time.perf_counter() - started
        effects = {name: result[name].effect_size for name in names}
        print(json.dumps({"round": line.strip(), "seconds": seconds, "effects": effects}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
