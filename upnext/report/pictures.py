"""Charts as pictures, where no browser draws them: in notebooks."""

import json
from dataclasses import dataclass
from typing import Any

from upnext.report.charts import ROWS, charts
from upnext.report.facts import Rows
from upnext.report.palette import LIGHT


@dataclass(frozen=True)
class Picture:
    """A picture that notebooks show."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg


def draw(chart: str, rows: Rows, *, width: int = 720) -> Picture:
    """Draw a chart of `charts()` from its rows, as wide as so many pixels; days are dates in ISO 8601."""
    import vl_convert  # noqa: PLC0415 - it loads an engine of JavaScript

    text = json.dumps(charts()[chart])
    for name, colour in LIGHT.items():
        text = text.replace(f"var(--{name})", colour)
    spec: dict[str, Any] = {**json.loads(text), "width": width}
    # Words are measured without the fonts of a reader, so four of them in a row may overlap.
    spec["config"]["legend"]["columns"] = 2
    spec["datasets"] = {**spec.get("datasets", {}), ROWS: rows}
    return Picture(vl_convert.vegalite_to_svg(spec))
