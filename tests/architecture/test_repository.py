"""What the repository promises about itself."""

import re
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[2]


def test_every_make_target_of_the_readme_is_there() -> None:
    named = set(re.findall(r"`make ([a-z][a-z-]*)`", (PROJECT / "README.md").read_text()))
    targets = set(re.findall(r"^([a-z][a-z-]*):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
    assert named
    assert named <= targets


def test_the_lock_has_hashes_and_names_no_index() -> None:
    lock = (PROJECT / "requirements.txt").read_text()
    pins = re.findall(r"^[a-z0-9][^\s]*==", lock, flags=re.MULTILINE | re.IGNORECASE)
    assert len(pins) > 50
    assert lock.count("--hash=sha256:") >= len(pins)
    assert not re.search(r"--(extra-)?index-url|--find-links|https?://", lock)


def test_every_direct_dependency_has_its_sentence() -> None:
    decisions = (PROJECT / "DECISIONS.md").read_text().lower()
    project = (PROJECT / "pyproject.toml").read_text()
    block = project.split("dependencies = [")[1].split("]\n")[0] + project.split("dev = [")[1].split("]\n")[0]
    names = re.findall(r'^\s+"([A-Za-z0-9-]+)', block, flags=re.MULTILINE)
    assert len(names) > 20
    assert [name for name in names if f"`{name.lower()}`" not in decisions] == []


def test_every_model_has_a_description_that_begins_with_its_grain() -> None:
    described = {}
    folders = (PROJECT / "dbt_project" / "engine", PROJECT / "dbt_project" / "models")
    for path in (path for folder in folders for path in folder.rglob("_*.yml")):
        for model in yaml.safe_load(path.read_text()).get("models") or []:
            described[model["name"]] = model.get("description", "")
    models = {path.stem for folder in folders for path in folder.rglob("*.sql")}
    assert models == set(described)
    assert {name for name, text in described.items() if not text.startswith("One row per ")} == set()


def test_no_file_names_a_path_of_one_machine() -> None:
    pattern = re.compile(r"(^|[^A-Za-z0-9_.])/(home|root|work)/")
    kinds = {".py", ".sql", ".yml", ".yaml", ".md", ".toml", ".txt", ".ipynb", ".html"}
    rooms = (
        "upnext", "assets", "sensors", "orchestration", "campaigns", "sources", "examples", "docs", "dbt_project",
        "demo", "notebooks", "tests",
    )  # fmt: skip
    files = [path for room in rooms for path in (PROJECT / room).rglob("*")] + list(PROJECT.glob("*"))
    checked = [path for path in files if path.suffix in kinds and path != Path(__file__)]
    assert len(checked) > 80
    assert [path for path in checked if pattern.search(path.read_text(errors="replace"))] == []


def test_the_unit_tests_mirror_the_product() -> None:
    """`tests/unit/events/test_source.py` tests `upnext/events/source.py`; `test_source_faults.py` would too."""
    for path in (PROJECT / "tests" / "unit").rglob("test_*.py"):
        place = path.parent.relative_to(PROJECT / "tests" / "unit")
        rooms = ("assets", "sensors", "orchestration")
        folder = PROJECT / place if place.parts and place.parts[0] in rooms else PROJECT / "upnext" / place
        modules = [module.stem for module in folder.glob("*.py")] + [place.name]
        assert any(path.stem.startswith(f"test_{module}") for module in modules if module), path


def test_the_tests_of_the_product_name_nothing_that_ships() -> None:
    """What ships may be edited by whoever runs it; only `tests/content` follows it."""
    places = ("dbt_project/models/segments/*.sql", "campaigns/journeys/*.yml", "campaigns/experiences/*.yml")
    names = {path.stem for place in places for path in PROJECT.glob(place)}
    assert len(names) > 10
    named = re.compile(rf"\b({'|'.join(sorted(names))})\b")
    files = [path for room in ("unit", "integration", "fixtures") for path in (PROJECT / "tests" / room).rglob("*")]
    texts = {path: path.read_text() for path in files if path.suffix in {".py", ".yml", ".sql", ".txt", ".mjml"}}
    assert len(texts) > 60
    assert {path: named.findall(text) for path, text in texts.items() if named.search(text)} == {}
