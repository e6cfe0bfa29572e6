"""The command line as people call it: one clear line and status 2 for what they can mend."""

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import UPNEXT, Cli, free_port
from upnext import dbt

EVENT = '{"type":"track","event":"login","userId":"u1","messageId":"m1","timestamp":"2026-03-01T00:00:00Z"}\n'


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text(EVENT)
    return path


def test_the_loop_by_hand(cli: Cli, events: Path) -> None:
    done = json.loads(cli.run("ingest", events, "--json").stdout)
    assert done == {
        "received": 1, "stored": 1, "duplicate": 0, "rejected": 0, "files": 1, "files_already_loaded": 0,
    }  # fmt: skip
    assert json.loads(cli.run("ingest", events, "--json").stdout)["files_already_loaded"] == 1

    ticked = cli.run("tick", "--as-of", "2026-03-02T00:00:00Z", "--json")
    assert ticked.returncode == 0, ticked.stderr
    assert json.loads(ticked.stdout)["as_of"] == "2026-03-02T00:00:00+00:00"
    assert "earlier than the last tick" in cli.fails("tick", "--as-of", "2026-03-01T23:59:59Z")

    replayed = cli.run("replay", "--from", "2026-03-03T00:00:00Z", "--to", "2026-03-03T12:00:00Z", "--every", "6h")
    assert replayed.returncode == 0, replayed.stderr
    assert "earlier than the last" in cli.fails(
        "replay", "--from", "2026-03-01T00:00:00Z", "--to", "2026-03-02T00:00:00Z"
    )

    status = json.loads(cli.run("status", "--json").stdout)
    assert status["watermarks"]["as_of"] == "2026-03-03T12:00:00+00:00"
    assert status["last_run"]["tick_id"] == 4
    assert status["events"]["stored"] == 1


def test_what_is_in_the_home_is_its_owners_alone(cli: Cli, tmp_path: Path) -> None:
    home = tmp_path / "fresh"
    before = os.umask(0o022)
    try:
        for command in (["journeys", "start", "earn_upgrade"], ["tick"], ["report"]):
            assert cli.run(*command, UPNEXT_HOME=str(home)).returncode == 0
    finally:
        os.umask(before)
    found = [path for path in (home, *home.rglob("*")) if not path.is_symlink()]
    assert len(found) > 10
    assert [f"{path} {path.stat().st_mode:o}" for path in found if path.stat().st_mode & 0o077] == []


def test_a_program_that_crashes_leaves_no_core_file(cli: Cli) -> None:
    with subprocess.Popen([UPNEXT, "live"], env=cli.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Watching")
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        process.terminate()
    assert re.search(r"Max core file size +0 +0 ", limits)


def test_landing_is_loaded_by_a_tick(cli: Cli) -> None:
    landing = cli.home / "landing" / "segment"
    landing.mkdir(parents=True)
    (landing / "events.jsonl").write_text(EVENT)
    ticked = json.loads(cli.run("tick", "--json").stdout)
    assert ticked["ingest"]["stored"] == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ingest", "nowhere.jsonl"], "no such file or folder: nowhere.jsonl"),
        (["ingest", "EVENTS", "--source", "playlst"], "unknown source 'playlst'; did you mean 'playlist'?"),
        (["ingest"], "Missing argument 'PATHS...'"),
        (["tick", "--as-of", "yesterday"], "'yesterday' is not an ISO 8601 time"),
        (["tick", "--as-of", "2026-03-01T00:00:00"], "has no zone"),
        (["tick", "--as-of", "0001-01-01T00:00:00+10:00"], "not an ISO 8601 time"),
        (["tick", "--as-of", "2126-03-01T00:00:00Z"], "in the future"),
        (["replay", "--from", "2026-03-01T00:00:00Z"], "Missing option '--to'"),
        (["replay", "--from", "2026-03-02T00:00:00Z", "--to", "2026-03-01T00:00:00Z"], "is earlier than --from"),
        (["replay", "--from", "2026-03-01T00:00:00Z", "--to", "2126-03-01T00:00:00Z"], "in the future"),
        (["replay", "--from", "2026-03-01T00:00:00Z", "--to", "2026-03-02T00:00:00Z", "--every", "1"], "--every: '1'"),
        (["tock"], "No such command 'tock'"),
    ],
)
def test_bad_arguments(cli: Cli, events: Path, arguments: list[str], expected: str) -> None:
    assert expected in cli.fails(*(str(events) if argument == "EVENTS" else argument for argument in arguments))


def test_a_file_that_is_not_json_loads_nothing(cli: Cli, events: Path, tmp_path: Path) -> None:
    other = tmp_path / "picture.png"
    other.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    assert "not JSON lines" in cli.fails("ingest", events, other)
    other.write_text("id,name\n1,Ada\n")
    assert "any other file needs --source" in cli.fails("ingest", events, other)
    assert json.loads(cli.run("status", "--json").stdout)["events"]["received"] == 0


def test_a_database_that_is_not_there(cli: Cli) -> None:
    port = free_port()
    message = cli.fails("tick", UPNEXT_DATABASE_URL=f"postgresql://me:secret@127.0.0.1:{port}/db")
    assert f"cannot reach the database at 127.0.0.1:{port}/db" in message
    assert "secret" not in message
    assert "expected postgresql://" in cli.fails("tick", UPNEXT_DATABASE_URL="nonsense")
    assert "p@ss" not in cli.fails("tick", UPNEXT_DATABASE_URL="postgresql://me:p@ss:w0rd@host/db")
    assert "UPNEXT_SMTP_URL" in cli.fails("tick", UPNEXT_SMTP_URL="nonsense")
    assert "UPNEXT_MAIL_FROM" in cli.fails("tick", UPNEXT_MAIL_FROM="Otto")
    assert "UPNEXT_CONTENT: " in cli.fails("tick", UPNEXT_CONTENT="nowhere")


def test_a_file_that_is_refused_is_told_and_its_neighbours_are_loaded(cli: Cli, events: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl.gz"
    bad.write_bytes(b"\x1f\x8b no gzip")
    done = cli.run("ingest", bad, events, "--json")
    assert done.returncode == 2
    assert f"upnext: {bad}: cannot be unpacked as gzip" in done.stderr
    assert json.loads(done.stdout)["stored"] == 1


def test_rejected_lines_are_listed_and_tried_again(cli: Cli, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text('{"type":"odd","userId":"u1"}\n{broken\n{broken too\n')
    done = cli.run("ingest", events)
    assert (done.returncode, done.stderr) == (0, "upnext: warning: 3 lines were rejected: `upnext rejected` says why\n")
    reasons = json.loads(cli.run("rejected", "--json").stdout)
    assert [(reason["reason"], reason["lines"], reason["place"]) for reason in reasons] == [
        ("invalid_json", 2, f"{events}:2"),
        ("unknown_type", 1, f"{events}:1"),
    ]
    table = cli.run("rejected", "--source", "segment").stdout
    assert "invalid_json" in table
    assert "{broken" in table
    assert json.loads(cli.run("replay-rejected", "--reason", "unknown_type", "--json").stdout) == {
        "tried": 1, "stored": 0, "duplicate": 0, "rejected": 1,
    }  # fmt: skip
    assert "did you mean 'segment'" in cli.fails("rejected", "--source", "segmnt")
    assert "did you mean 'segment'" in cli.fails("replay-rejected", "--source", "segmnt")


def test_journeys_by_hand(cli: Cli, tmp_path: Path) -> None:
    checked = cli.run("journeys", "check")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.splitlines()[0] == "earn_upgrade: upgrade_reasons, plan_reminder"
    rendered = cli.run("journeys", "render", "regain_payers", "--out", tmp_path / "mails")
    assert rendered.returncode == 0, rendered.stderr
    assert {path.name for path in (tmp_path / "mails").iterdir()} == {
        "catch_up.html", "catch_up.txt", "video_tour.html", "video_tour.txt",
    }  # fmt: skip
    nowhere = tmp_path / "nowhere"
    assert "unknown journey 'earn_upgrad'; did you mean" in cli.fails(
        "journeys", "render", "earn_upgrad", "--out", nowhere
    )
    assert not nowhere.exists()
    assert cli.run("tick", "--as-of", "2026-03-02T00:00:00Z").returncode == 0
    explained = json.loads(cli.run("journeys", "explain", "ada", "earn_upgrade", "--json").stdout)
    assert [line["text"] for line in explained][-1] == (
        "the journey is not started: `upnext journeys start earn_upgrade`"
    )
    assert cli.run("journeys", "pause", "earn_upgrade").returncode == 0
    assert json.loads(cli.run("status", "--json").stdout)["paused"] == ["earn_upgrade"]
    assert cli.run("journeys", "resume", "earn_upgrade").stdout.startswith("resumed: 0 users")


def test_an_empty_home_says_what_to_do(cli: Cli) -> None:
    assert "Nothing has been computed yet: load events" in cli.run("status").stdout
    assert "No results yet: an analysis writes them once" in cli.run("results").stdout
    assert cli.run("rejected").stdout == "No line is rejected.\n"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}; choose another: --port {port + 1}" in cli.fails(
            "dev", "--port", str(port), "--edge-port", str(free_port())
        )


def test_in_a_pipe_a_table_is_plain_text(cli: Cli) -> None:
    printed = cli.run("status").stdout
    assert printed.isascii(), "no lines drawn around it"
    assert "members: busy_users" in printed
    assert max(map(len, printed.splitlines())) < 130


def test_what_others_wrote_steers_no_terminal(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "clear\x1b[2J.jsonl"
    path.write_text("{\x1b]0;title\x07 broken \u202e\n" + EVENT.replace("u1", "u\\u001b[31m1"))
    done = [cli.run("ingest", path), cli.run("rejected"), cli.run("ingest", tmp_path / "no\x1b[2J.jsonl")]
    cli.run("tick", "--as-of", "2026-03-02T00:00:00Z")
    done.append(cli.run("journeys", "explain", "u\x1b[31m1", "earn_upgrade"))
    for one in done:
        assert [c for c in one.stdout + one.stderr if not c.isprintable() and c != "\n"] == []
    assert "no\\x1b[2J.jsonl" in done[2].stderr
    assert "\\x1b]0;title\\x07 broken \\u202e" in done[1].stdout


def test_dbt_and_psql_by_hand(cli: Cli, tmp_path: Path) -> None:
    cli.run("tick", "--as-of", "2026-01-01T00:00:00Z")
    script = 'eval "$(' + UPNEXT + ' env)" && exec "$@"'
    environment = {**cli.environment, "PATH": f"{Path(UPNEXT).parent}:{os.environ['PATH']}"}

    def by_hand(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", "-c", script, "bash", *command], cwd=tmp_path, env={**environment, **more},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = by_hand("dbt", "show", "--inline", "select count(*) as ticks from segments.published_ticks", "--quiet")
    assert done.returncode == 0, done.stdout
    assert "|     1 |" in done.stdout
    assert by_hand("sh", "-c", 'test "$PGDATABASE" = upnext_test && test -n "$PGPASSWORD"').returncode == 0
    alone = subprocess.run(
        [Path(UPNEXT).parent / "dbt", "debug", "--project-dir", dbt.PROJECT_DIR, "--profiles-dir", dbt.PROJECT_DIR],
        env={name: value for name, value in environment.items() if not name.startswith(("UPNEXT_PG", "DBT_"))},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Env var required but not provided: 'UPNEXT_PG_HOST'" in alone.stdout


def test_the_documentation_of_the_models(cli: Cli) -> None:
    done = cli.run("docs", "--no-serve")
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.removeprefix("written: ").strip())
    assert "upgrade_seekers" in page.read_text()
