"""Real server processes on loopback that tests talk to: an object store that speaks S3, and Postgres."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import boto3
import psycopg2
import pytest

from turnover_assets_tests.factories import free_port
from turnover_assets_tests.waiting import PATIENCE

POSTGRES_PROGRAMS = Path("/usr/lib/postgresql")  # where Debian puts them, by version
KEYS = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "a-secret-key",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """An object store in a process of its own; gives its endpoint."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
        try:
            _wait_for_port(port, process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait(PATIENCE)


def _wait_for_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"nothing listens on {port}; the log:\n{log.read_text()}")


@dataclass(frozen=True)
class Bucket:
    """A bucket of one test's own.

    Attributes:
        endpoint: Where its store listens.
        name: Its name.
    """

    endpoint: str
    name: str

    @property
    def url(self) -> str:
        """Its address."""
        return f"s3://{self.name}"

    @cached_property
    def client(self) -> Any:
        """A client that shares no code with ours."""
        return boto3.client("s3")

    def put(self, key: str, content: bytes | str) -> None:
        self.client.put_object(
            Bucket=self.name, Key=key, Body=content if isinstance(content, bytes) else content.encode()
        )

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def state(self, prefix: str = "") -> dict[str, tuple[str, Any]]:
        """ETag and time of last change of every object, by key."""
        found = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        objects = (item for page in found for item in page.get("Contents", []))
        return {item["Key"]: (item["ETag"], item["LastModified"]) for item in objects}


def make_bucket(endpoint: str) -> Bucket:
    """A new bucket, under a name that no other has."""
    made = Bucket(endpoint, f"test-{uuid4().hex[:12]}")
    made.client.create_bucket(Bucket=made.name)
    return made


def postgres_programs() -> Path:
    """The folder of Postgres's programs, of the newest version there is."""
    found = sorted(POSTGRES_PROGRAMS.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not found:
        pytest.skip("Postgres is not installed (Debian's package postgresql)")
    return found[-1].parent


@dataclass(frozen=True)
class PostgresServer:
    """A Postgres server with passwords, and its superuser.

    Attributes:
        port: Where it listens, on loopback.
        password: Of its superuser `admin`.
    """

    port: int
    password: str

    def url(self, database: str, user: str = "admin", password: str | None = None) -> str:
        """The address of a database for a user."""
        secret = quote(password or self.password, safe="")
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}"


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server of an empty folder, ended with the block; Postgres refuses to be root's.

    The folder is not among those of pytest, which no other user may pass through.
    """
    programs, port, password = postgres_programs(), free_port(), "p@ss/w?rd:1"
    with TemporaryDirectory(prefix="turnover-postgres-") as temporary:
        folder = Path(temporary)
        data, secret = folder / "data", folder / "password"
        secret.write_text(password)
        as_user = _become_somebody(folder, secret)
        made = [programs / "initdb", "--pgdata", data, "--username=admin", "--auth=scram-sha-256"]
        _run([*as_user, *made, "--no-sync", "--encoding=UTF8", "--locale=C", f"--pwfile={secret}"], folder)
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
        control = [*as_user, programs / "pg_ctl", "--pgdata", data]
        _run([*control, "--log", folder / "data" / "log", "-o", options, "-w", "start"], folder)
        try:
            yield PostgresServer(port, password)
        finally:
            _run([*control, "-m", "immediate", "-w", "stop"], folder)


def _become_somebody(*paths: Path) -> list[str]:
    """Give paths to another user where this one is root; gives what begins a command of that user."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("Postgres cannot be run by root, and there is no setpriv to become another user")
    for path in paths:
        shutil.chown(path, "postgres", "postgres")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


def _run(command: Sequence[object], folder: Path) -> None:
    subprocess.run(
        [str(word) for word in command], cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE
    )


@contextmanager
def connected(url: str, *, autocommit: bool = True) -> Iterator[Any]:
    """A cursor of a connection of one's own."""
    connection = psycopg2.connect(url)
    connection.autocommit = autocommit
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()
