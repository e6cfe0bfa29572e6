"""The embedded server: started by whoever comes first, found by the others, and nothing half made."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from upnext.warehouse.embedded import EmbeddedServer


@pytest.fixture
def deep_home(tmp_path: Path) -> Path:
    """A path that is too long for a Unix socket, below a folder that others may not list."""
    home = tmp_path / ("deep-" * 20) / ("er-" * 20)
    home.mkdir(parents=True, mode=0o700)
    return home


def test_the_server_outlives_its_starter_and_stops_when_told(deep_home: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from upnext.warehouse.embedded import EmbeddedServer;"
        " print(EmbeddedServer(Path(sys.argv[1])).start())"
    )
    urls = [
        subprocess.run(
            [sys.executable, "-c", script, str(deep_home)], check=True, capture_output=True, text=True
        ).stdout.strip()
        for _ in range(2)
    ]
    server = EmbeddedServer(deep_home)
    assert urls == [server.start()] * 2
    engine = sa.create_engine(urls[0].replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text("create table kept (x int)"))
        assert connection.scalar(sa.text("show listen_addresses")) == "127.0.0.1"
    engine.dispose()
    with socket.create_connection(("127.0.0.1", sa.make_url(urls[0]).port or 0)) as visitor:
        assert server.stop()
        visitor.recv(1024)  # the server hung up first, so its port lingers in TIME_WAIT
    assert not server.stop()
    assert server.start() == urls[0]
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select count(*) from kept")) == 0
    engine.dispose()
    server.stop()


def test_a_server_that_was_killed_is_started_again_at_once(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    url = server.start()
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    for _ in range(3):
        os.kill(int((tmp_path / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        assert server.start() == url
        with engine.connect() as connection:
            assert connection.scalar(sa.text("select 1")) == 1
        engine.dispose()
    server.stop()


def test_a_cluster_that_was_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "data.new").mkdir()
    (tmp_path / "data.new" / "PG_VERSION").write_text("18")
    server = EmbeddedServer(tmp_path)
    url = server.start()
    with sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:")).connect() as connection:
        assert connection.scalar(sa.text("select 1")) == 1
    server.stop()


def test_no_password_no_entry(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    url = sa.make_url(server.start()).set(drivername="postgresql+psycopg", password="wrong")
    with pytest.raises(sa.exc.OperationalError, match="password authentication failed"):
        sa.create_engine(url).connect()
    assert (tmp_path / "password").stat().st_mode & 0o077 == 0
    server.stop()
