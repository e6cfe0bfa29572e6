"""The recipes of the deployment guide name commands, variables and modules that there are, and a run needs no more."""

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.engine import URL

from tests.conftest import create_database
from tests.content.test_site_of_docs import COMMANDS
from upnext.settings import PROJECT, VARIABLES

GUIDE = (PROJECT / "docs" / "run" / "deploy.md").read_text()
RECIPES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]
COMPOSE: dict[str, Any]
COMPOSE, CHART = RECIPES
DAGSTER = str(Path(sys.executable).parent / "dagster")


def test_the_recipes_set_variables_that_there_are() -> None:
    assert set(re.findall(r"UPNEXT_[A-Z_]+", GUIDE)) <= set(VARIABLES)


@pytest.mark.parametrize("service", ["edge", "live", "hourly"])
def test_the_services_call_commands_that_there_are(service: str) -> None:
    stated = COMPOSE["services"][service]["command"]
    called = re.findall(r"upnext ([^;&\"]+)", stated)
    assert called, stated
    for name, *options in map(shlex.split, called):
        COMMANDS[name].make_context(name, options)
    assert COMPOSE["services"][service]["depends_on"]["db"]["condition"] == "service_healthy"


def test_the_image_takes_nothing_that_belongs_to_one_machine() -> None:
    left_out = (PROJECT / ".dockerignore").read_text().split()
    assert {".venv", ".upnext*", ".env", ".git"} <= set(left_out)
    assert {".venv", ".upnext*/", ".env"} <= set((PROJECT / ".gitignore").read_text().split())


def test_the_chart_names_the_module_and_folders_of_the_image() -> None:
    [deployment] = CHART["dagster-user-deployments"]["deployments"]
    option, module = deployment["dagsterApiGrpcArgs"]
    assert option == "-m"
    assert find_spec(module)
    environment = {one["name"]: one["value"] for one in deployment["env"]}
    assert f"WORKDIR {environment['PYTHONPATH']}" in GUIDE
    assert f"UPNEXT_HOME={environment['UPNEXT_HOME']}" in GUIDE
    assert deployment["volumeMounts"][0]["mountPath"] == environment["UPNEXT_HOME"]


def test_a_run_needs_nothing_that_the_dev_command_prepares(embedded_url: URL, tmp_path: Path) -> None:
    database = create_database(embedded_url, "upnext_deployed").render_as_string(hide_password=False)
    (tmp_path / "dagster").mkdir()
    variables = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(PROJECT), "UPNEXT_DATABASE_URL": database,
        "UPNEXT_HOME": str(tmp_path / "home"), "DAGSTER_HOME": str(tmp_path / "dagster"),
    }  # fmt: skip
    command = [DAGSTER, "job", "execute", "-m", "orchestration.definitions", "-j", "tick"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "RUN_SUCCESS" in done.stderr
