"""`pip install .` gives a package that runs from another folder, with all that it needs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sqlalchemy.engine import URL

from tests.conftest import create_database
from upnext.settings import PROJECT

PARTS = (
    "upnext",
    "dbt_project",
    "campaigns",
    "sources",
    "notebooks",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)


def test_the_package_runs_from_another_folder(embedded_url: URL, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (PROJECT / part).is_dir() else shutil.copy
        copy(PROJECT / part, source / part)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site]
    subprocess.run([*pip, source], check=True)
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} <= {"upnext", "bin"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("UPNEXT_")},
            "PYTHONPATH": str(site),
            "UPNEXT_DATABASE_URL": create_database(embedded_url).render_as_string(hide_password=False),
        }
        command = [sys.executable, "-P", "-c", "from upnext.cli import main; main()", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert run("check").returncode == 0
    done = run("tick", "--json")
    assert done.returncode == 0, done.stderr
    assert '"tick_id": 1' in done.stdout
    for command in (("report",), ("notebook", "journey_review")):
        written = run(*command)
        assert written.returncode == 0, written.stderr
        assert Path(written.stdout.removeprefix("written: ").strip()).is_file()
    assert (tmp_path / ".upnext").is_dir(), "the home lies where the command was called"
    assert "the UI needs a checkout" in run("dev").stderr
