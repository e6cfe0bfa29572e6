"""Who may import whom."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PURE_LIBRARIES = {
    "numpy", "scipy", "pandas", "msgspec", "jinja2", "email_validator", "itsdangerous", "mjml", "matplotlib",
}  # fmt: skip
PURE = sorted(
    path.relative_to(PROJECT)
    for path in [
        *PROJECT.glob("assets/*/event.py"),
        *PROJECT.glob("assets/*/source.py"),
        *PROJECT.glob("assets/*/definition.py"),
        *PROJECT.glob("assets/*/links.py"),
        *PROJECT.glob("assets/*/policy.py"),
        *PROJECT.glob("assets/*/rendering.py"),
        *PROJECT.glob("assets/*/report.py"),
        *PROJECT.glob("assets/*/samples.py"),
        *PROJECT.glob("assets/*/comparisons.py"),
        *PROJECT.glob("assets/*/statistics.py"),
        PROJECT / "demo/otto.py",
    ]
)
GROUND = {f"orchestration.{name}" for name in ("conditions", "declarations", "errors", "reserved", "wording")}
SUBJECTS = ("events", "features", "segments", "journeys", "experiences", "analytics")
ROOMS = ("orchestration", "assets", "sensors", "demo")
IMPURE_STANDARD = {"socket", "smtplib", "subprocess", "os", "time", "random", "asyncio", "threading"}


def imports(path: Path) -> set[str]:
    tree = ast.parse((PROJECT / path).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


def modules(*rooms: str) -> list[Path]:
    return sorted(path.relative_to(PROJECT) for room in rooms for path in (PROJECT / room).rglob("*.py"))


@pytest.mark.parametrize("path", PURE, ids=str)
def test_pure_modules_import_nothing_that_acts(path: Path) -> None:
    import sys

    for name in imports(path):
        first = name.split(".")[0]
        is_own = name.startswith(("assets.", "demo.")) and PROJECT / f"{name.replace('.', '/')}.py" in {
            PROJECT / pure for pure in PURE
        }
        is_declaration = name in GROUND
        is_standard = first in sys.stdlib_module_names and first not in IMPURE_STANDARD
        assert is_own or is_declaration or is_standard or first in PURE_LIBRARIES, f"{path} imports {name}"


def test_there_are_pure_modules_in_every_subject() -> None:
    assert {path.parts[1] for path in PURE if path.parts[0] == "assets"} == set(SUBJECTS)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_knows_the_others_by_table_only(subject: str) -> None:
    others = tuple(f"assets.{other}" for other in SUBJECTS if other != subject)
    for path in modules(f"assets/{subject}"):
        assert not {name for name in imports(path) if name.startswith(others)}, path


def test_dagster_stays_in_thin_shells() -> None:
    shells = {"assets.py", "checks.py"}
    for path in modules("assets"):
        if path.name not in shells:
            assert not {name for name in imports(path) if name.split(".")[0].startswith("dagster")}, path


def test_nothing_imports_the_composition_root() -> None:
    for path in modules(*ROOMS):
        assert "orchestration.definitions" not in imports(path), path


def test_only_the_edges_read_the_clock() -> None:
    edges = {Path("orchestration/stages.py")}
    for path in modules(*ROOMS):
        text = (PROJECT / path).read_text()
        if path not in edges:
            assert "datetime.now(" not in text, path
            assert "time.time(" not in text, path
