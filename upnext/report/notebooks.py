"""Runs notebooks, and shows them as HTML with their code folded."""

import re
from collections.abc import Mapping
from pathlib import Path

from upnext.errors import UpnextError, nearest
from upnext.settings import PROJECT, Settings

FOLDER = PROJECT / "notebooks"
_TEMPLATES = Path(__file__).parent


def names() -> list[str]:
    """Return the notebooks there are."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def run(settings: Settings, name: str, parameters: Mapping[str, str]) -> Path:
    """Run a notebook of the warehouse that the environment names, and return its page in Upnext's home.

    Raises `UpnextError` for a notebook or a parameter that there is not, and for what the notebook itself complains of.
    """
    import papermill  # noqa: PLC0415 - slow to import

    if name not in names():
        raise UpnextError(f"no notebook is called '{name}'{nearest(name, names())}")
    known = papermill.inspect_notebook(str(FOLDER / f"{name}.ipynb"))
    for parameter in parameters:
        if parameter not in known:
            raise UpnextError(f"notebook '{name}' has no parameter '{parameter}'{nearest(parameter, list(known))}")
    values = {key: int(value) if value.isascii() and value.isdigit() else value for key, value in parameters.items()}
    # A notebook of another subject is another page.
    subject = "-".join(value for value in parameters.values() if re.fullmatch(r"[a-z][a-z0-9_]{0,99}", value))
    done = settings.home / "notebooks" / f"{name}{f'-{subject}' if subject else ''}.ipynb"
    done.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # papermill takes braces in a path for parameters.
    source, target = (str(path).replace("{", "{{").replace("}", "}}") for path in (FOLDER / f"{name}.ipynb", done))
    try:
        papermill.execute_notebook(source, target, parameters=values, progress_bar=False)
    except papermill.exceptions.PapermillExecutionError as error:
        raise UpnextError(f"notebook '{name}': {error.evalue or error.ename}") from None
    page = done.with_suffix(".html")
    page.write_text(_html_of(done, title=name.replace("_", " ")), encoding="utf-8")
    return page


def _html_of(notebook: Path, *, title: str) -> str:
    """Return a notebook as one page that asks for nothing."""
    from nbconvert import HTMLExporter  # noqa: PLC0415 - slow to import

    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="folded",
        extra_template_basedirs=[str(_TEMPLATES)],
        mathjax_url="",
        require_js_url="",
        jquery_url="",
        embed_images=True,
    )
    html, _ = exporter.from_filename(str(notebook), resources={"metadata": {"name": title}})
    return str(html)
