"""The colours of the report, by their names in `report.css` and in its charts. Pure."""

LIGHT = {
    "ground": "#fff",
    "card": "#fff",
    "ink": "#172033",
    "quiet": "#56617a",
    "line": "#dde2ec",
    "accent": "#3346d3",
    "band": "#c7cbf5",
    "down": "#b3261e",
    "good": "#0b6b3a",
    "bad": "#a3201a",
    "soft": "#f4f6fb",
    "series-1": "#3346d3",
    "series-2": "#c2570c",
    "series-3": "#0b7a53",
    "series-4": "#9a2d86",
    "series-5": "#6b6f00",
    "series-6": "#0a7d97",
    "series-7": "#a3333d",
    "series-8": "#5b6478",
}
DARK = {
    "ground": "#0f1420",
    "card": "#161d2c",
    "ink": "#e8ecf5",
    "quiet": "#a3adc2",
    "line": "#2c3649",
    "accent": "#93a1ff",
    "band": "#39406f",
    "down": "#ff9a8f",
    "good": "#6fd7a2",
    "bad": "#ff9a8f",
    "soft": "#1a2233",
    "series-1": "#93a1ff",
    "series-2": "#ffae73",
    "series-3": "#6fd7a2",
    "series-4": "#ef9ce0",
    "series-5": "#d9dc6a",
    "series-6": "#72d5ea",
    "series-7": "#ff9fa8",
    "series-8": "#b3bccd",
}
PAPER = LIGHT | {"ink": "#000", "quiet": "#444", "line": "#bbb", "soft": "#f4f4f4"}


def css() -> str:
    """Return the style sheet that sets them: light, dark where the reader prefers it, and ink on paper."""
    return (
        f":root{{{_set(LIGHT)}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{_set(DARK)}}}}}\n"
        f"@media print{{:root{{color-scheme:light;{_set(PAPER)}}}}}\n"
    )


def _set(colours: dict[str, str]) -> str:
    return ";".join(f"--{name}:{value}" for name, value in colours.items())
