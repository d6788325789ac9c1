"""Checks of the home as a folder: there, writable, with room, in one piece; landing folder and files by hand.

What belongs here: folders, files and room. What does not: what the tables, models and runs in them say.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from turnover_assets import __version__
from turnover_assets.doctor import Patient, Told, check
from turnover_assets.errors import TurnoverError
from turnover_assets.storage.durable import PARTIAL
from turnover_assets.storage.home_layout import LAYOUT, check_layout
from turnover_assets.storage.housekeeping import SET_ASIDE, size_of
from turnover_assets.storage.landing_folder import list_folder
from turnover_assets.storage.ledger import read_ledger
from turnover_assets.storage.sqlite_files import reading

LEAST_FREE = 200_000_000  # bytes without which a run is likely to fail
QUICK_BYTES = 20_000_000  # larger databases are only read whole with --deep
MADE_AT_USE = "`turnover run` makes it."


@check("home")
def folder(patient: Patient) -> Iterator[Told]:
    """The home is a folder that can be written."""
    home = patient.settings.home.absolute()
    if not home.exists():
        above = next(parent for parent in home.parents if parent.exists())
        if above.is_dir() and os.access(above, os.W_OK):
            yield "warning", f"{home} is not there yet", MADE_AT_USE
        else:
            yield "problem", f"{home} is not there and cannot be made", f"Permit writing in {above}."
        return
    if not home.is_dir():
        yield "problem", f"{home} is no folder", "Move it away, or name another TURNOVER_HOME."
        return
    inner = [home, *(path for path in home.iterdir() if path.is_dir())]
    if closed := [str(path) for path in inner if not os.access(path, os.R_OK | os.W_OK | os.X_OK)]:
        yield "problem", f"{', '.join(closed)} cannot be written", "Permit this user to read and write there."
    else:
        yield "ok", str(home)


@check("layout")
def layout(patient: Patient) -> Iterator[Told]:
    """The home has the layout of this release."""
    home = patient.settings.home.absolute()
    found = check_layout(home) if home.is_dir() else None
    if found is None:
        return
    told = f"layout {found.layout}, used last by release {found.release or '0.1.0'}; this is {__version__}"
    if found.layout < LAYOUT:
        yield "warning", told, "`turnover upgrade` brings it up, and so does the next run; back it up first."
    else:
        yield "ok", told


@check("room")
def room(patient: Patient) -> Iterator[Told]:
    """There is room for the next runs, and for a rebuild or a backup."""
    home = patient.settings.home.absolute()
    place = next(path for path in (home, *home.parents) if path.exists())
    free, used = shutil.disk_usage(place).free, size_of(home) if home.is_dir() else 0
    told = f"{free / 1e9:,.1f} GB free, the home has {used / 1e9:,.2f} GB"
    remedy = "Make room: `turnover housekeep --dry-run` lists what can go; see docs/operations.md."
    if free < max(LEAST_FREE, used // 10):
        yield "problem", told, remedy
    elif free < used + LEAST_FREE:
        yield "warning", f"{told}: too little for a rebuild or a second copy", remedy
    else:
        yield "ok", told


@check("leftovers")
def leftovers(patient: Patient) -> Iterator[Told]:
    """Nothing lies about that a killed process, a rebuild or a restore has left."""
    home = patient.settings.home.absolute()
    put_aside = [*sorted(home.glob(SET_ASIDE)), *sorted(home.parent.glob(f"{home.name}.before-*"))]
    for path in put_aside:
        size = size_of(path) / 1e6
        yield "warning", f"{path} ({size:,.1f} MB) was put aside", "Delete it when you do not need it."
    partial = [path.name for inner in ("published", "raw") for path in (home / inner).glob(f"{PARTIAL}*")]
    if partial:
        remedy = "Nothing: the next run or `turnover housekeep` removes it, unless it is being written now."
        yield "ok", f"{len(partial)} files of a writer that is at work or was killed", remedy


@check("landing folder")
def landing(patient: Patient) -> Iterator[Told]:
    """The landing folder can be read."""
    place = patient.settings.landing_path
    if not place.exists() and patient.settings.landing is None:
        if patient.has_home:
            yield "warning", f"{place} is not there", MADE_AT_USE
        return
    try:
        files = list_folder(place)
    except TurnoverError as error:
        yield "problem", str(error), "Correct TURNOVER_LANDING, or the folder's permissions."
        return
    if unread := [path.name for path in files if not os.access(path, os.R_OK)]:
        yield "warning", f"{len(unread)} files cannot be read, such as {unread[0]}", "Permit reading them."
    else:
        yield "ok", f"{len(files)} files in {place}"


@check("ledger")
def ledger(patient: Patient) -> Iterator[Told]:
    """The ledger of adjustments, where there is one, has no errors."""
    path = patient.settings.ledger_path
    if patient.panel is None or not path.exists():
        return
    try:
        read_ledger(path, patient.panel)
    except TurnoverError as error:
        problems = [line.strip() for line in str(error).splitlines()[1:-1]]
        yield "problem", f"{path}: {'; '.join(problems)}", "Correct it; `turnover adjustments check`."
        return
    yield "ok", str(path)


@check("databases")
def databases(patient: Patient) -> Iterator[Told]:
    """The SQLite files of Dagster, MLflow and alerts can be read, and are in one piece."""
    home = patient.settings.home.absolute()
    paths = [*_main_databases(home)] if not patient.deep else sorted({*_main_databases(home), *_shards(home)})
    paths = [path for path in paths if path.exists()]
    whole = 0
    for path in paths:
        if problem := _damage(path, read_all=patient.deep or path.stat().st_size < QUICK_BYTES):
            yield "problem", f"{path} is damaged or cannot be read ({problem})", _mend(path)
        else:
            whole += 1
    if paths and whole == len(paths):
        yield "ok", f"{whole} databases are whole"


def _main_databases(home: Path) -> list[Path]:
    dagster = home / "dagster"
    return [
        home / "mlflow" / "mlflow.db",
        dagster / "history" / "runs.db",
        dagster / "history" / "runs" / "index.db",
        dagster / "schedules" / "schedules.db",
        home / "alerts" / "alerts.sqlite",
        home / "decisions.sqlite",
        home / "keys.sqlite",
    ]


def _shards(home: Path) -> Iterator[Path]:
    return (home / "dagster" / "history" / "runs").glob("*.db")


def _damage(path: Path, *, read_all: bool) -> str:
    """What is wrong with an SQLite file; empty where nothing is."""
    try:
        with reading(path) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0] if read_all else "ok"
    except sqlite3.Error as error:
        return str(error)
    return "" if found == "ok" else str(found).replace("\n", " ")


def _mend(path: Path) -> str:
    """What to do about a damaged database."""
    if path.parent.name == "mlflow":
        return "Put the home back from a backup (`turnover restore`): models cannot be made without it."
    if path.parent.name == "runs" and path.name != "index.db":
        return "It is the log of one run: delete that run in the page, or the file while nothing runs."
    if path.name == "decisions.sqlite":
        return "Move it away: a new log of decisions is begun."
    if path.name == "keys.sqlite":
        return "Put it back from a backup, or move it away and make the keys anew: `turnover keys create`."
    if path.parent.name == "alerts":
        return "Move it away while nothing runs: alerts that are open will be sent once more."
    return "Put the home back from a backup, or move var/dagster away: only records of runs are lost."
