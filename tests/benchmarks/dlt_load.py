"""Loads a file of JSON lines with dlt, in an environment of its own, and prints the seconds it took."""

import json
import sys
import time
from pathlib import Path

import dlt


@dlt.resource(name="events", write_disposition="append", max_table_nesting=0)
def events(path: str):  # type: ignore[no-untyped-def]
    """Yield pages of events."""
    with Path(path).open() as stream:
        page = []
        for line in stream:
            page.append(json.loads(line))
            if len(page) == 10_000:
                yield page
                page = []
        yield page


if __name__ == "__main__":
    path, url, home = sys.argv[1:]
    pipeline = dlt.pipeline(
        "benchmark", destination=dlt.destinations.postgres(url), dataset_name="dlt", pipelines_dir=home
    )
    started = time.perf_counter()
    pipeline.run(events(path))
    print(time.perf_counter() - started)
