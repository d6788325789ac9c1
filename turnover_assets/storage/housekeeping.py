"""Housekeeping of files: old snapshots and pages, leftovers of killed processes, room inside SQLite files.

What belongs here: finding and removing those, in an order that a kill cannot spoil. What does not: model
versions (model_housekeeping.py), runs (defs/run_housekeeping.py), how much is kept (core/housekeeping.py).
"""

import shutil
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from turnover_assets.core.forecast_history import old_shadows, published_versions, remove_old_shadows
from turnover_assets.core.housekeeping import Sweep
from turnover_assets.errors import WarehouseBusyError
from turnover_assets.storage.durable import PARTIAL, exclusive
from turnover_assets.storage.pages import is_dated
from turnover_assets.storage.snapshots import FACTS, beyond, prune
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets.storage.workbook_files import outlived

SET_ASIDE = "warehouse.before-*.duckdb"  # what rebuild put away; a person decides on it
FREE_SHARE, FREE_BYTES = 0.25, 1 << 20  # an SQLite file with more free room than both is written anew
BUSY_SECONDS = 0.5
LIVE_SECONDS = 86_400  # no small file takes longer to write


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; what vanishes meanwhile counts as nothing."""
    total = 0
    for file in [path] if path.is_file() else path.rglob("*"):
        try:
            total += file.lstat().st_size if not file.is_dir() else 0
        except OSError:
            continue
    return total


def sweep_snapshots(published: Path, keep: int, *, remove: bool) -> Sweep:
    """Remove the oldest snapshots beyond `keep`; never the current one, or one that a reader has open."""
    sizes = {folder.name: size_of(folder) for folder in beyond(published, keep)}
    removed = prune(published, keep) if remove and sizes else list(sizes)
    left = len(list(published.glob(f"[!.]*/{FACTS}"))) - (0 if remove else len(removed))
    freed = sum(sizes.get(name, 0) for name in removed)
    return Sweep("published snapshots", tuple(removed), freed, {"newest": left})


def sweep_pages(folder: Path, keep: int, *, remove: bool) -> Sweep:
    """Remove the oldest pages, or folders of them, that are named after a cutoff; others stay."""
    pages = sorted(path for path in folder.glob("*") if is_dated(path.name.removesuffix(".html")))
    old = pages[:-keep]
    part = f"reports in {folder.name}"
    return _files(part, folder, old, {"newest": len(pages) - len(old)}, remove=remove)


def sweep_workbooks(folder: Path, snapshots: Sequence[str], *, remove: bool) -> Sweep:
    """Remove workbooks whose snapshot is there no more."""
    old = outlived(folder, snapshots)
    left = len(list(folder.glob("*"))) - len(old)
    return _files("workbooks", folder, old, {"of published snapshots": left}, remove=remove)


def sweep_leftovers(guarded: Iterable[Path], others: Iterable[Path], *, remove: bool) -> Sweep:
    """Remove what killed writers left in folders.

    Args:
        guarded: Folders that writers hold a lock on (durable.writing_into); one that is held is left alone.
        others: Folders whose writers hold none: what is younger than a day may be in use there.
        remove: Whether to do it.
    """
    sweeps = [_leftovers(folder, time.time(), remove=remove) for folder in guarded]
    sweeps += [_leftovers(folder, time.time() - LIVE_SECONDS, remove=remove) for folder in others]
    names = tuple(name for sweep in sweeps for name in sweep.removed)
    return Sweep("leftovers of killed writers", names, sum(sweep.freed for sweep in sweeps))


def _leftovers(folder: Path, before: float, *, remove: bool) -> Sweep:
    with exclusive(folder) as alone:
        found = sorted(folder.glob(f"{PARTIAL}*")) if alone else []
        dead = [path for path in found if path.stat().st_mtime <= before]
        return _files("", folder.parent, dead, {}, remove=remove)


def sweep_overflow(warehouse: Warehouse, *, remove: bool) -> Sweep:
    """Remove what DuckDB's overflow has left in <home>/tmp, while nobody uses the warehouse."""
    folder = warehouse.path.parent / "tmp"
    try:
        with warehouse.lock():
            return _files("DuckDB's overflow", folder, sorted(folder.glob("*")), {}, remove=remove)
    except WarehouseBusyError as error:
        return Sweep("DuckDB's overflow", note=str(error))


def sweep_shadows(warehouse: Warehouse, cutoffs: int, champion: int | None, *, remove: bool) -> Sweep:
    """Remove forecasts of challenger and baseline that nothing looks at any more; published ones stay."""
    part = "shadow forecasts"
    if not warehouse.path.is_file():
        return Sweep(part)
    with warehouse.transaction() as con:
        old = old_shadows(con, cutoffs, champion)
        if remove and old:
            remove_old_shadows(con, cutoffs, champion)
    rows = sum(count for _, count in old)
    note = f"{rows:,} rows; the warehouse uses their room again" if rows else ""
    return Sweep(part, tuple(cutoff for cutoff, _ in old), 0, {}, note)


def forecast_with(warehouse: Warehouse) -> set[int]:
    """Model versions of the published forecasts that the warehouse keeps."""
    if not warehouse.path.is_file():
        return set()
    with warehouse.transaction() as con:
        return published_versions(con)


def list_set_aside(home: Path) -> Sweep:
    """Name the warehouses that rebuilding put away; they are never removed, since a person may want them."""
    found = sorted(home.glob(SET_ASIDE))
    if not found:
        return Sweep("old warehouses")
    size = sum(size_of(path) for path in found) / 1e6
    listed = ", ".join(path.name for path in found)
    note = f"{listed} ({size:,.1f} MB): delete them yourself when you do not need them"
    return Sweep("old warehouses", kept={"put away by rebuild": len(found)}, note=note)


def compact(paths: Iterable[Path], *, remove: bool) -> Sweep:
    """Write SQLite files anew that are largely free room, unless another process is writing them."""
    found, freed, notes = [], 0, []
    for path in paths:
        try:
            if (room := _free_room(path)) and remove:
                room = _vacuum(path)
        except sqlite3.Error as error:
            notes.append(f"{path.name}: {error}; left for the next time")
            continue
        if room:
            found.append(path.name)
            freed += room
    return Sweep("free room in databases", tuple(found), freed, note="; ".join(notes))


def _free_room(path: Path) -> int:
    """Free bytes of an SQLite file; 0 where they are too few to bother."""
    if not path.is_file():
        return 0
    with closing(_connect(path)) as connection:
        size, pages, free = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
    return free * size if free * size > FREE_BYTES and free > FREE_SHARE * pages else 0


def _vacuum(path: Path) -> int:
    """Write an SQLite file anew; gives the bytes that it shrank by."""
    before = size_of(path)
    with closing(_connect(path)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before - size_of(path)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)


def _files(part: str, folder: Path, old: list[Path], kept: dict[str, int], *, remove: bool) -> Sweep:
    freed = sum(size_of(path) for path in old)
    for path in old if remove else []:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return Sweep(part, tuple(path.relative_to(folder).as_posix() for path in old), freed, kept)
