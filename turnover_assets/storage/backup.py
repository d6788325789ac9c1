"""Backups: a data home in one archive, and a home put back from it whole or not at all.

What belongs here: writing, checking and unpacking the archive. What does not: keeping runs away meanwhile
(maintenance.py holds the locks).

An archive is a tar, compressed with Zstandard (.tar.zst) or gzip (.tar.gz). Its last member, backup.json,
names every file with its size and SHA-256, so that an archive that was cut short or changed is told before
anything of it is used. Databases are copied by SQLite itself, since a copy of the file could be torn.
MLflow's records are in it as mlflow/mlflow.db, also where a home has them in Postgres.

Invariants:
    - a backup appears under its name only once it is whole and on disk;
    - the models' database is copied before the models' files, so that each version it names is there;
    - a home is put in place in one step, after every file was checked; what was there is moved aside.
"""

import io
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any
from uuid import uuid4

import pyarrow as pa

from turnover_assets import __version__
from turnover_assets.errors import TurnoverError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage.durable import PARTIAL, exclusive, shared, sync
from turnover_assets.storage.home_layout import check_layout
from turnover_assets.storage.snapshots import FACTS
from turnover_assets.storage.sqlite_files import reading

FORMAT = 1
MANIFEST = "backup.json"
RECORDS = "mlflow/mlflow.db"
ARTIFACTS = "mlflow/artifacts"  # in a home; wherever that was when MLflow noted an address
CODECS = {".zst": "zstd", ".gz": "gzip"}
MAGIC = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}
SQLITE = b"SQLite format 3\0"
WAREHOUSE = ("warehouse.duckdb", "warehouse.duckdb.wal")
# What can be made again, belongs to a process, or is for a person to keep: warehouses that rebuild put aside.
LEFT_OUT = ("tmp", "fingerprints.json", "run.lock", "warehouse.lock", "session.secret")
LEFT_OUT_BEGINNINGS = (PARTIAL, "warehouse.before-", "warehouse.rebuilding")
BESIDE_SQLITE = ("-wal", "-shm", "-journal")
OF_WAREHOUSE = "`turnover rebuild` makes it again, without what it remembers of past runs"
CHUNK_BYTES = 1 << 20
Progress = Callable[[str], None]


@dataclass(frozen=True)
class BackedUp:
    """What is in an archive.

    Attributes:
        path: The archive.
        files: Number of files.
        content_bytes: Their bytes.
        archive_bytes: Bytes of the archive.
        left_out: What a person might miss in it, in words.
        damaged: Databases that cannot be read; they are in it as they are.
    """

    path: Path
    files: int
    content_bytes: int
    archive_bytes: int
    left_out: tuple[str, ...]
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class Restored:
    """A home that was put back.

    Attributes:
        home: Where it is.
        facts: What the archive says of itself: `created_at`, `release`, `panel`, `home`.
        files: Number of files.
        set_aside: Where the home is now that was there before; None where there was none.
    """

    home: Path
    facts: Mapping[str, Any]
    files: int
    set_aside: Path | None


def codec_of(output: Path) -> str:
    """The compression that a file's name asks for.

    Raises:
        TurnoverError: It asks for none that is known.
    """
    if output.suffixes[-2:-1] == [".tar"] and output.suffix in CODECS:
        return CODECS[output.suffix]
    raise TurnoverError(f"{output} is no name for a backup: let it end in .tar.zst or .tar.gz.")


def write_backup(
    home: Path,
    panel: PanelSpec,
    output: Path,
    progress: Progress,
    *,
    with_warehouse: bool = True,
    database: str = "",
) -> BackedUp:
    """Write a home into an archive; the caller keeps runs and the warehouse's writers away.

    Args:
        home: The home.
        panel: Its panel; the archive names it.
        output: The archive; its name decides on the compression.
        progress: Told what begins.
        with_warehouse: Whether to take the warehouse too; `turnover rebuild` makes it again.
        database: Address of the Postgres database that MLflow's records are in; empty where there is none.

    Raises:
        TurnoverError: The archive cannot be written, or something cannot be read; nothing is left of it.
    """
    codec, output = codec_of(output), output.absolute()
    if output.resolve().is_relative_to(home.resolve()):
        raise TurnoverError(f"{output} is in the home itself. Name a file outside, best on another disk.")
    _remove_dead(output)
    damaged: list[str] = []
    left_out = _left_out(home, with_warehouse=with_warehouse)
    partial = output.with_name(f"{PARTIAL}{output.name}-{uuid4().hex[:6]}")
    noted: dict[str, dict[str, Any]] = {}
    about = {
        "format": FORMAT,
        "created_at": datetime.now(UTC).isoformat(),
        "release": __version__,
        "panel": {"name": panel.name, "digest": panel.digest},
        "home": str(home.absolute()),
        "left_out": left_out,
    }
    try:
        with ExitStack() as leaving:
            leaving.callback(partial.unlink, missing_ok=True)
            partial.touch(exist_ok=False)
            leaving.enter_context(shared(partial))
            with _compressed(partial, codec) as archive:
                taken = _in_order(home, with_warehouse=with_warehouse, leaving=leaving)
                members = ((path.relative_to(home).as_posix(), path) for path in taken)
                for name, path in _with_records(members, database) if database else members:
                    _tell(progress, name, noted)
                    damaged += _add_file(archive, path, name, noted)
                _add(archive, MANIFEST, json.dumps({**about, "files": noted}, indent=1).encode())
            sync(partial)
            partial.replace(output)
            sync(output.parent)
    except (OSError, sqlite3.Error) as error:
        raise TurnoverError(
            f"The backup {output} cannot be written ({getattr(error, 'strerror', None) or error}). Nothing "
            "of it is left; make room or permit writing there, see `turnover doctor`, and try again."
        ) from error
    total = sum(noted_file["bytes"] for noted_file in noted.values())
    return BackedUp(output, len(noted), total, output.stat().st_size, tuple(left_out), tuple(damaged))


@contextmanager
def _compressed(path: Path, codec: str) -> Iterator[tarfile.TarFile]:
    with (
        pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), codec) as stream,
        tarfile.open(fileobj=stream, mode="w|") as archive,
    ):
        yield archive


def _remove_dead(path: Path) -> None:
    """Remove what killed processes left of a file or folder that they were making."""
    for dead in path.parent.glob(f"{PARTIAL}{path.name}-*"):
        with exclusive(dead) as alone:
            if alone and dead.is_dir():
                shutil.rmtree(dead, ignore_errors=True)
            elif alone:
                dead.unlink(missing_ok=True)


def _left_out(home: Path, *, with_warehouse: bool) -> list[str]:
    """What a person might miss in the archive, in words."""
    found = [f"{path.name}, which rebuild put aside" for path in sorted(home.glob("warehouse.before-*"))]
    found += [] if with_warehouse else [f"the warehouse: {OF_WAREHOUSE}"]
    links = [path for path in home.rglob("*") if path.is_symlink() and path.is_dir()]
    return found + [f"{path.relative_to(home)}, a link to the folder {path.resolve()}" for path in links]


def _in_order(home: Path, *, with_warehouse: bool, leaving: ExitStack) -> Iterator[Path]:
    """The files to take: databases first, and each snapshot as a whole, under a lease."""
    paths = [p for p in _walk(home) if _is_taken(p.relative_to(home), with_warehouse=with_warehouse)]
    databases = [path for path in paths if _is_sqlite(path)]
    yield from databases
    for path in sorted({*paths} - {*databases}):
        if path.name == FACTS:
            with suppress(OSError):
                leaving.enter_context(shared(path))
    yield from sorted({*paths} - {*databases})


def _with_records(members: Iterable[tuple[str, Path]], database: str) -> Iterator[tuple[str, Path]]:
    """The same files with MLflow's records from Postgres before them, in place of a file that is not used."""
    from turnover_assets.storage.model_copy import records_to_file

    with TemporaryDirectory(prefix="turnover-backup-") as folder:
        yield RECORDS, records_to_file(database, Path(folder))
    yield from ((name, path) for name, path in members if name != RECORDS)


def _walk(home: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(home):
        for name in names:
            path = Path(folder, name)
            if path.is_file():
                yield path


def _is_taken(path: Path, *, with_warehouse: bool) -> bool:
    first = path.parts[0]
    if any(part.startswith(LEFT_OUT_BEGINNINGS) for part in path.parts) or first in LEFT_OUT:
        return False
    if len(path.parts) == 1 and first in WAREHOUSE:
        return with_warehouse
    return not path.name.endswith(tuple(f".db{e}" for e in BESIDE_SQLITE)) and not path.name.endswith(
        tuple(f".sqlite{e}" for e in BESIDE_SQLITE)
    )


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(SQLITE)) == SQLITE
    except OSError:
        return False


def _tell(progress: Progress, name: str, noted: Mapping[str, Any]) -> None:
    """Tell of a part of the home once, when its first file comes."""
    part = name.partition("/")[0]
    if not any(seen.partition("/")[0] == part for seen in noted):
        progress(part)


def _add_file(archive: tarfile.TarFile, path: Path, name: str, noted: dict[str, dict[str, Any]]) -> list[str]:
    """Add a file as it is now; one that has vanished, as Dagster's passing files do, is left out.

    Returns:
        Its name, where it is a database that cannot be read.
    """
    damaged: list[str] = []
    with TemporaryDirectory(prefix="turnover-backup-") as folder, ExitStack() as leaving:
        source = path
        try:
            source = _copied(path, Path(folder) / "copy.db") if _is_sqlite(path) else path
        except sqlite3.OperationalError:  # it is in use for too long, or there is no room for the copy
            raise
        except sqlite3.DatabaseError:
            damaged.append(name)
        try:
            stream = leaving.enter_context(source.open("rb"))
        except FileNotFoundError:
            return []
        size, digesting = os.fstat(stream.fileno()).st_size, _Digesting(stream)
        _add(archive, name, digesting, size, mode=path.stat().st_mode & 0o777)
        noted[name] = {"bytes": size, "sha256": digesting.digest.hexdigest()}
    return damaged


def _copied(path: Path, copy: Path) -> Path:
    """A whole copy of a database that others may be writing to."""
    with (
        reading(path, timeout=60) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target, pages=1000)
        target.execute("PRAGMA journal_mode = DELETE")
    return copy


class _Digesting:
    """A stream that notes the digest of what is read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.digest = stream, sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self.stream.read(size)
        self.digest.update(chunk)
        return chunk


def _add(
    archive: tarfile.TarFile, name: str, content: "bytes | _Digesting", size: int = 0, mode: int = 0o644
) -> None:
    member = tarfile.TarInfo(name)
    member.mode, member.mtime = mode, int(datetime.now(UTC).timestamp())
    member.size = len(content) if isinstance(content, bytes) else size
    archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else content)


def restore_backup(archive: Path, home: Path, progress: Progress, *, replace: bool = False) -> Restored:
    """Put a home back from an archive.

    Args:
        archive: The archive.
        home: Where to put it.
        progress: Told what begins.
        replace: Whether to move what is there aside; without it an occupied home is refused.

    Raises:
        TurnoverError: The archive is damaged or of a newer release, or the home is occupied or cannot be
            written; what was there is as before.
    """
    home = home.absolute()
    if (occupied := home.exists() and (not home.is_dir() or any(home.iterdir()))) and not replace:
        raise TurnoverError(
            f"{home} is not empty. Name another folder with --into, or move what is there aside with "
            "--replace."
        )
    _remove_dead(home)
    partial = home.with_name(f"{PARTIAL}{home.name}-{uuid4().hex[:6]}")
    try:
        with ExitStack() as leaving:
            partial.mkdir(parents=True)
            leaving.callback(shutil.rmtree, partial, ignore_errors=True)
            leaving.enter_context(shared(partial))
            progress("unpacking")
            facts, found = _unpack(archive, partial)
            _check(archive, facts, found)
            check_layout(partial)
            progress("checking")
            move_records(partial, home)
            aside = _put_in_place(partial, home, occupied=occupied)
    except OSError as error:
        raise TurnoverError(
            f"{home} cannot be restored ({error.strerror or error}). Nothing was changed there; make room or "
            "permit writing, then try again."
        ) from error
    return Restored(home, facts, len(found), aside)


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with archive.open("rb") as stream:
            begin = stream.read(4)
    except OSError as error:
        raise TurnoverError(f"{archive} cannot be read ({error.strerror or error}).") from None
    codec = next((codec for magic, codec in MAGIC.items() if begin.startswith(magic)), None)
    if codec is None:
        raise TurnoverError(f"{archive} is no backup: it is neither .tar.zst nor .tar.gz.")
    with (
        pa.CompressedInputStream(pa.OSFile(str(archive), "rb"), codec) as stream,
        tarfile.open(fileobj=stream, mode="r|") as opened,
    ):
        yield opened


def _unpack(archive: Path, folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Unpack an archive; gives what it says of itself, and size and digest of each file that was written."""
    found: dict[str, dict[str, Any]] = {}
    facts: dict[str, Any] | None = None
    try:
        with _opened(archive) as opened:
            for member in opened:
                if member.name == MANIFEST:
                    facts = json.loads((opened.extractfile(member) or io.BytesIO()).read())
                    break
                found[member.name] = _unpack_file(opened, member, folder)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise _damaged(archive, str(error)) from error
    except OSError as error:
        if error.errno is not None:  # of this system; pyarrow's have none
            raise
        raise _damaged(archive, str(error)) from error
    if not isinstance(facts, dict) or "files" not in facts:
        raise _damaged(archive, f"it ends before its list of files ({MANIFEST})")
    return facts, found


def _unpack_file(opened: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> dict[str, Any]:
    """Write one file below a folder; anything else than a plain file inside it is refused.

    tarfile's own filters are not asked: Python's first releases of 3.11, which Debian 12 has, are without.
    """
    if not member.isreg():
        raise tarfile.TarError(f"{member.name} is no plain file")
    if (path := PurePosixPath(member.name)).is_absolute() or ".." in path.parts:
        raise tarfile.TarError(f"{member.name} is outside of the home")
    mode = (member.mode or 0o600) & 0o755
    content, target, digest = opened.extractfile(member), folder / path, sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as stream:
        while content and (chunk := content.read(CHUNK_BYTES)):
            digest.update(chunk)
            stream.write(chunk)
        os.fsync(stream.fileno())
    target.chmod(mode | 0o400)  # kept files stay as they were: for reading only
    return {"bytes": target.stat().st_size, "sha256": digest.hexdigest()}


def _check(archive: Path, facts: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse an archive whose files are not those that it lists, or that this release does not know."""
    if facts.get("format", 0) > FORMAT:
        raise TurnoverError(
            f"{archive} was written by a newer release ({facts.get('release')}). Restore with that release."
        )
    wrong = sorted(name for name in {*facts["files"], *found} if facts["files"].get(name) != found.get(name))
    if wrong:
        raise _damaged(archive, f"{len(wrong)} files are not as they were written, such as {wrong[0]}")


def _damaged(archive: Path, problem: str) -> TurnoverError:
    return TurnoverError(f"{archive} is damaged: {problem}. Nothing was changed. Take another backup.")


def move_records(folder: Path, home: Path) -> None:
    """Let MLflow's records name the files where they will be: it keeps absolute addresses.

    Args:
        folder: The unpacked home that has MLflow's store.
        home: Where it will be.
    """
    store = folder / RECORDS
    if not store.is_file():
        return
    place = (home / ARTIFACTS).as_uri()
    with closing(sqlite3.connect(store)) as connection, connection:
        for table, column in _text_columns(connection):
            found = connection.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file:%'")
            for (address,) in found.fetchall():
                before, known, inner = str(address).rpartition(f"/{ARTIFACTS}")
                if known and f"{before}{known}" != place:
                    new = (place + inner, address)
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", new)


def _text_columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """MLflow's columns that hold addresses of files, as far as this release of it has them."""
    wanted = {
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("model_versions", "source"),
        ("model_versions", "storage_location"),
        ("logged_models", "artifact_location"),
    }
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    there = {(t, row[1]) for (t,) in tables for row in connection.execute(f"PRAGMA table_info('{t}')")}
    return sorted(wanted & there)


def _put_in_place(partial: Path, home: Path, *, occupied: bool) -> Path | None:
    """Give a whole home its name; what was there gets another one, and it back should that fail."""
    sync(partial)
    aside = home.with_name(f"{home.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%f}") if occupied else None
    if aside:
        home.rename(aside)
    elif home.is_dir():
        home.rmdir()
    try:
        partial.rename(home)
    except BaseException:
        if aside:
            aside.rename(home)
        raise
    sync(home.parent)
    return aside
