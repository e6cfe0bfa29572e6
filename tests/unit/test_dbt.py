"""How dbt is called."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from sqlalchemy.engine import make_url

from upnext.dbt import Dbt, build_arguments, environment, in_one_line
from upnext.dev import storage_url
from upnext.settings import Settings
from upnext.warehouse.engine import SESSION


def test_a_tick_hands_its_id_and_instant_to_dbt() -> None:
    arguments = build_arguments(as_of=datetime(2026, 4, 1, tzinfo=UTC), tick_id=7)
    assert json.loads(arguments[-1]) == {"as_of": "2026-04-01T00:00:00+00:00", "tick_id": 7}


def test_what_ends_dbt_from_outside_is_no_failure_of_dbt() -> None:
    class EndedError(BaseException):
        pass

    ended = SimpleNamespace(exception=EndedError(), success=False)
    with pytest.raises(EndedError):
        Dbt(Settings.from_environment({}))._result(ended)


def test_a_build_by_hand_has_no_tick() -> None:
    assert json.loads(build_arguments(as_of=None, tick_id=None)[-1]) == {}


def test_the_profile_comes_from_the_url() -> None:
    url = make_url("postgresql://me:p%40ss@db.example:5433/warehouse?sslmode=require")
    assert environment(Settings.from_environment({}), url) == {
        "UPNEXT_PG_HOST": "db.example",
        "UPNEXT_PG_PORT": "5433",
        "UPNEXT_PG_USER": "me",
        "DBT_ENV_SECRET_UPNEXT_PG_PASSWORD": "p@ss",
        "UPNEXT_PG_DATABASE": "warehouse",
        "UPNEXT_PG_SSLMODE": "require",
        "UPNEXT_DBT_THREADS": "2",
        "UPNEXT_DBT_MODELS": "models",
        "PGOPTIONS": SESSION,
    }


def test_a_socket_folder_is_a_host() -> None:
    url = make_url("postgresql:///db?host=/run/postgres")
    assert environment(Settings.from_environment({}), url)["UPNEXT_PG_HOST"] == "/run/postgres"


def test_dagster_speaks_psycopg2_in_its_own_schema() -> None:
    url = storage_url(make_url("postgresql://me@localhost/db"))
    assert url.startswith("postgresql+psycopg2://")
    assert "search_path%3Ddagster" in url


def test_an_error_of_the_server_is_told_in_its_own_words_alone() -> None:
    head = "Database Error in model orders (../../mine/models/segments/orders.sql)\n"
    told = in_one_line(f'{head}  syntax error at or near ">="\n  LINE 15: where orders >= >= 3', columns=())
    assert told == 'syntax error at or near ">="'
    assert in_one_line(f'{head}  column "arm" specified more than once', columns=()).startswith('column "arm"')
    assert in_one_line(f'{head}  invalid input syntax for type numeric: "ada@x.example"', columns=()).endswith('"..."')
    assert in_one_line("Compilation Error\n  unexpected '}'", columns=()) == "Compilation Error unexpected '}'"
