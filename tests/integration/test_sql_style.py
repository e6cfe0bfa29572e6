"""The SQL of dbt's models, as dbt writes it for the warehouse, follows one style: sqlfluff with dbt's own templater."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from upnext import dbt
from upnext.project import Project

SQLFLUFF = Path(sys.executable).parent / "sqlfluff"


def lint(project: Project, *paths: str) -> subprocess.CompletedProcess[str]:
    assert project.settings.database_url is not None
    known = dbt.shell_environment(project.settings, project.engine.url)
    environment = {**os.environ, **known, "UPNEXT_DBT_MODELS": "models"}
    command = [str(SQLFLUFF), "lint", "--disable-progress-bar", *paths]
    return subprocess.run(
        command, cwd=dbt.PROJECT_DIR, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_models_follow_one_style(ticked: Project) -> None:
    done = lint(ticked, "engine", "models", "tests")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("content")
def test_what_does_not_follow_it_is_found(ticked: Project) -> None:
    path = dbt.PROJECT_DIR / "engine" / "membership" / "shouting.sql"
    path.write_text(
        "SELECT user_id from {{ ref('user_features') }} where logins_30d >= 5 and " + "logins_30d > 1 " * 12
    )
    done = lint(ticked, str(path.relative_to(dbt.PROJECT_DIR)))
    assert done.returncode == 1
    assert "Keywords must be" in done.stdout
    assert "Line is too long" in done.stdout
