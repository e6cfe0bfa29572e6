"""Who may import whom: all imports run downwards, and what is called pure is."""

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = (
    ("upnext.errors", "upnext.clock", "upnext.reserved", "upnext.garbage"),
    ("upnext.settings", "upnext.wording", "upnext.kept", "upnext.supervise", "upnext.whole_file"),
    ("upnext.declarations", "upnext.durations", "upnext.warehouse"),
    ("upnext.conditions", "upnext.ticks", "upnext.sql"),
    ("upnext.switches", "upnext.erased", "upnext.origin"),
    ("upnext.kinds",),
    tuple(f"upnext.{name}" for name in ("events", "features", "segments", "journeys", "experiences", "analytics")),
    ("upnext.retention",),
    ("upnext.dbt_patches", "upnext.status", "upnext.alerts", "upnext.edge", "upnext.people"),
    ("upnext.dbt", "upnext.dbt_program"),
    ("upnext.project",),
    ("upnext.loop",),
    ("upnext.operations", "upnext.dev", "upnext.live"),
    ("upnext.report", "upnext.doctor"),
    ("upnext.cli",),
    ("assets",),
    ("sensors",),
    ("orchestration",),
    ("demo",),
)  # fmt: skip
PACKAGES = ("upnext", "assets", "sensors", "orchestration", "demo")
PURE_LIBRARIES = {
    "numpy", "scipy", "pandas", "msgspec", "jinja2", "email_validator", "itsdangerous", "mjml", "altair", "sqlglot",
    "yaml", "markupsafe",
}  # fmt: skip
IMPURE_STANDARD = {
    "socket", "smtplib", "subprocess", "os", "time", "random", "secrets", "asyncio", "threading", "ssl", "http",
    "urllib.request", "ftplib", "shutil", "tempfile", "multiprocessing", "signal",
}  # fmt: skip


def path_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def modules() -> list[str]:
    paths = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]


MODULES = modules()


@functools.cache
def imports(module: str) -> frozenset[str]:
    """Return what a module imports, wherever in it: modules of ours and of Python, others by their library's name."""
    found = set()
    for node in ast.walk(ast.parse(path_of(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inner}
    return frozenset(name if name in MODULES or is_standard(name) else name.split(".")[0] for name in found)


def is_standard(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in sys.stdlib_module_names


def acts(module: str) -> bool:
    """Whether a module, or the package that it is in, is one of Python's that acts."""
    return any(module == name or module.startswith(f"{name}.") for name in IMPURE_STANDARD)


@functools.cache
def reached(module: str) -> frozenset[str]:
    """Return all that a module imports, itself or through modules of ours."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = imports(waiting.pop()) - found
        found |= new
        waiting += [name for name in new if name in MODULES]
    return frozenset(found)


def room(module: str) -> str | None:
    """Return the package or module of FLOORS that a module belongs to."""
    return next((name for floor in FLOORS for name in floor if module == name or module.startswith(f"{name}.")), None)


def floor(module: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if room(module) in names)


def test_every_module_has_its_floor() -> None:
    assert [module for module in MODULES if module not in PACKAGES and room(module) is None] == []
    assert len(MODULES) > 80


@pytest.mark.parametrize("module", [module for module in MODULES if module != "upnext"])
def test_imports_run_down(module: str) -> None:
    for name in reached(module):
        if name in MODULES and room(name) is not None:
            is_below = floor(name) < floor(module) or room(name) == room(module)
            assert is_below, f"{module} reaches {name}, which is on its own floor or above"


def test_the_product_knows_no_dagster() -> None:
    for module in MODULES:
        if module.startswith("upnext"):
            assert not {name for name in reached(module) if name.startswith("dagster")}, module


def is_called_pure(module: str) -> bool:
    return bool(re.search(r"\bPure\.", ast.get_docstring(ast.parse(path_of(module).read_text())) or ""))


PURE = [module for module in MODULES if is_called_pure(module)]


@pytest.mark.parametrize("module", PURE)
def test_a_module_that_is_called_pure_reaches_nothing_that_acts(module: str) -> None:
    for name in reached(module) - set(MODULES):
        is_harmless = is_standard(name) and not acts(name)
        assert is_harmless or name in PURE_LIBRARIES, f"{module} reaches {name}"


def test_the_rules_are_called_pure() -> None:
    rules = {
        "upnext.conditions", "upnext.durations", "upnext.ticks.instants", "upnext.events.event", "upnext.events.source",
        "upnext.features.definition", "upnext.segments.definition", "upnext.journeys.definition",
        "upnext.journeys.policy", "upnext.journeys.copy.links", "upnext.journeys.copy.rendering",
        "upnext.experiences.definition", "upnext.analytics.definition", "upnext.analytics.comparisons",
        "upnext.analytics.statistics", "upnext.analytics.decision", "demo.otto",
    }  # fmt: skip
    assert rules - set(PURE) == set()


def test_only_the_edges_read_the_clock() -> None:
    for module in MODULES:
        if module != "upnext.clock":
            text = path_of(module).read_text()
            assert "datetime.now(" not in text, module
            assert "time.time(" not in text, module
