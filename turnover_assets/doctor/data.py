"""Checks of what the home holds: warehouse, kept files, snapshots, models.

What belongs here: whether each can be used, and agrees with the others. What does not: folders and databases
as files (home.py), and runs (records.py).
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import duckdb
from filelock import FileLock, Timeout

from turnover_assets.doctor import Patient, Told, check
from turnover_assets.errors import NoSnapshotError, TurnoverError
from turnover_assets.storage.digests import file_sha256
from turnover_assets.storage.kept import KeptFiles, kept_files
from turnover_assets.storage.migrations import SCHEMA_VERSION
from turnover_assets.storage.models_database import ask
from turnover_assets.storage.snapshots import CURRENT, FACTS, current, lease, read_snapshot
from turnover_assets.storage.sqlite_files import reading
from turnover_assets.storage.warehouse import FOREIGN_LOCK

REBUILD = "Make it again from the kept files: `turnover rebuild`."
RESTORE = "Put the home back from a backup: `turnover restore`."
NAMES_SHOWN = 3


@check("warehouse")
def warehouse(patient: Patient) -> Iterator[Told]:
    """The warehouse opens, is of this release, and has what has landed; one that is in use is left alone."""
    path, kept = patient.settings.warehouse_path, kept_files(patient.settings.home.absolute())
    if not path.exists():
        if any((kept.folder / "journal").glob("[!.]*.json")):
            yield "problem", f"{path} is not there, although files have landed", REBUILD
        return
    lock = FileLock(path.with_suffix(".lock"), timeout=0)
    try:
        with lock if path.with_suffix(".lock").is_file() else nullcontext():
            yield from _look_into(path, kept)
    except Timeout:
        yield "ok", f"{path} is in use by a run"


def _look_into(path: Path, kept: KeptFiles) -> Iterator[Told]:
    """What is in a warehouse that no run of ours uses now."""
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            version = con.execute("SELECT max(version) FROM meta.schema").fetchall()[0][0]
            landed = con.execute("SELECT file_no, digest FROM raw.files WHERE status = 'accepted'").fetchall()
    except duckdb.CatalogException:
        yield "warning", f"{path} has no tables of ours yet", "`turnover run` makes them."
        return
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        if FOREIGN_LOCK in str(error):
            yield "warning", f"{path} is locked by another program ({first})", "Close it: runs wait for it."
        else:
            yield "problem", f"{path} cannot be opened ({first})", REBUILD
        return
    if version > SCHEMA_VERSION:
        yield (
            "problem",
            f"{path} was written by a newer release (schema {version}, this one knows {SCHEMA_VERSION})",
            "Use that release, or another TURNOVER_HOME.",
        )
        return
    journal = {(int(row["file_no"]), str(row["digest"])) for row in kept.records()}
    lacking = sorted(number for number, _ in journal - {*landed} - {*_refused(kept)})
    if lacking:
        yield "problem", f"{path} lacks files that have landed (number {lacking[0]} the first)", REBUILD
    else:
        yield "ok", f"{len(landed)} files landed, schema {version}"


def _refused(kept: KeptFiles) -> set[tuple[int, str]]:
    return {(int(r["file_no"]), str(r["digest"])) for r in kept.records() if r["status"] != "accepted"}


@check("kept files")
def kept(patient: Patient) -> Iterator[Told]:
    """The bytes of every accepted file are kept; with --deep, that they are as they were."""
    found = kept_files(patient.settings.home.absolute())
    if not found.folder.is_dir():
        return
    rows = [row for row in found.records() if row["status"] == "accepted"]
    whole = found.is_whole if patient.deep else found.has
    lost = [f"{row['name']} ({found.path(row['digest'])})" for row in rows if not whole(row["digest"])]
    panels = {row["panel_digest"] for row in rows}
    lost += [f"panel {digest}" for digest in sorted(panels) if not _can_be_read(found, digest)]
    if lost:
        shown = ", ".join(lost[:NAMES_SHOWN])
        yield (
            "problem",
            f"{len(lost)} of {len(rows)} are missing or damaged: {shown}",
            "Put them back from a backup, or land the same files again: `turnover run --landing FOLDER`.",
        )
    else:
        yield "ok", f"{len(rows)} files, {'read and unchanged' if patient.deep else 'all there'}"


def _can_be_read(found: KeptFiles, panel_digest: str) -> bool:
    try:
        return bool(found.panel(panel_digest))
    except TurnoverError:
        return False


@check("published")
def published(patient: Patient) -> Iterator[Told]:
    """CURRENT names a whole snapshot; with --deep, every snapshot's files are as they were published."""
    folder = patient.settings.published_path
    if not folder.is_dir():
        return
    names = sorted(path.parent.name for path in folder.glob(f"[!.]*/{FACTS}"))
    if not names and not (folder / CURRENT).exists():
        yield "warning", "nothing has been published yet", "`turnover run` publishes, once files have landed."
        return
    try:
        now = current(folder)
    except NoSnapshotError as error:
        yield "problem", str(error), "`turnover run` publishes a new one."
    else:
        yield "ok", f"{now.name}, {len(names)} snapshots kept"
    for name in names:
        if problem := _damage_of(folder, name, deep=patient.deep):
            remedy = "Move its folder away; if it was the current one, `turnover run` publishes a new one."
            yield "problem", problem, remedy


def _damage_of(folder: Path, name: str, *, deep: bool) -> str:
    """What is wrong with a snapshot; empty where nothing is."""
    try:
        if not deep:
            read_snapshot(folder, name)
            return ""
        with lease(folder, name) as snapshot:
            wrong = [
                name for name, noted in snapshot.files.items() if _differs(snapshot.folder / name, noted)
            ]
    except NoSnapshotError as error:
        return str(error)
    return f"{name}: {', '.join(wrong)} not as published" if wrong else ""


def _differs(path: Path, noted: Mapping[str, Any]) -> bool:
    try:
        return file_sha256(path) != str(noted["sha256"])
    except OSError:
        return True


@check("model records")
def model_records(patient: Patient) -> Iterator[Told]:
    """The Postgres database of MLflow's records, where the settings name one, answers and is the only one."""
    database, file = patient.settings.mlflow_database, patient.settings.mlflow_path / "mlflow.db"
    if not database:
        return
    ((version,),) = ask(database, "SHOW server_version")
    yield "ok", f"in Postgres {version}"
    if file.is_file():
        remedy = "Bring them over as docs/operations.md says, «MLflow's records in Postgres», or delete it."
        yield "warning", f"{file} is there too, and nothing looks at it", remedy


@check("models")
def models(patient: Patient) -> Iterator[Told]:
    """The champion can forecast; with --deep, every version's files are as they were registered."""
    from turnover_assets.storage.registry import ModelRegistry

    if patient.panel is None or not _has_models(patient):
        return
    registry = ModelRegistry.of(patient.settings)
    champion = registry.find_champion()
    versions = [found.version for found in registry.versions()]
    if champion is None:
        yield "warning", f"{len(versions)} versions, but no champion", "`turnover run` trains one."
    elif misfit := registry.why_unfit(champion, patient.panel):
        yield (
            "problem",
            misfit,
            "`turnover models rollback --reason …`, or `turnover run`, which trains anew.",
        )
    else:
        yield "ok", f"version {champion} is champion and can forecast; {len(versions)} versions"
    for version in versions if patient.deep else ():
        if version != champion:
            try:
                registry.files(version)
            except TurnoverError as error:
                yield "warning", str(error).partition(". ")[0], "It cannot be gone back to; " + RESTORE


def _has_models(patient: Patient) -> bool:
    """Whether anything is registered; a store that cannot be read is a finding of its own."""
    file, query = patient.settings.mlflow_path / "mlflow.db", "SELECT 1 FROM registered_models LIMIT 1"
    try:
        if database := patient.settings.mlflow_database:
            return bool(ask(database, query))
        if not file.is_file():
            return False
        with reading(file) as connection:
            return connection.execute(query).fetchone() is not None
    except (sqlite3.Error, TurnoverError):
        return False
