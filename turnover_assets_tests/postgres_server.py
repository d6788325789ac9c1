"""A Postgres server of the tests' own on loopback; what needs one is skipped where Postgres is missing."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

import pytest

from turnover_assets_tests.factories import free_port

DEBIAN = Path("/usr/lib/postgresql")
QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=127.0.0.1")


def program(name: str) -> str:
    """A program of Postgres, of the newest release that is installed; the test is skipped without."""
    packaged = sorted(DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    if found := shutil.which(name) or (str(packaged[-1]) if packaged else None):
        return found
    return pytest.skip(f"{name} is not installed (Debian's package postgresql)")


class Server:
    """A server that runs.

    Attributes:
        port: Its port on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def address(self, database: str = "postgres") -> str:
        """How a client names a database."""
        return f"postgresql://tests:tests-password@127.0.0.1:{self.port}/{database}"

    def new_database(self, like: str = "template0") -> str:
        """Make a database, empty or like another, whose connections are ended, and give its address."""
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{like}'")
        name = f"test_{uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {like}")
        return self.address(name)

    def sql(self, statement: str, database: str = "postgres") -> None:
        """Have a statement carried out."""
        command = ["psql", "--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--command", statement]
        subprocess.run(
            [program(command[0]), *command[1:], self.address(database)], check=True, capture_output=True
        )


@contextmanager
def running() -> Iterator[Server]:
    """A server with an empty cluster, ended and removed with the block."""
    initdb, pg_ctl, port = program("initdb"), program("pg_ctl"), free_port()
    folder = Path(mkdtemp(prefix="turnover-postgres-"))
    password = folder / "password"
    password.write_text("tests-password")
    user = _owner()
    for path in (folder, password):
        shutil.chown(path, user)

    def do(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, user=user, cwd=folder)

    data, options = str(folder / "data"), " ".join(f"-c {option}" for option in QUICK)
    try:
        do(initdb, "--no-sync", "--auth=scram-sha-256", "--username=tests", f"--pwfile={password}", data)
        start = f"{options} -c port={port} -c unix_socket_directories={folder}"
        do(pg_ctl, "--wait", f"--pgdata={data}", f"--log={folder / 'log'}", "--options", start, "start")
        yield Server(port)
    finally:
        stop = (pg_ctl, "--mode=immediate", f"--pgdata={data}", "stop")
        subprocess.run(stop, check=False, capture_output=True, user=user, cwd=folder)
        shutil.rmtree(folder, ignore_errors=True)


def _owner() -> str:
    """Who the server runs as: this user, or one without rights where this one is root, which it refuses."""
    if os.geteuid():
        return pwd.getpwuid(os.geteuid()).pw_name
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
