"""Published snapshots in an object store: mirrored there, and fetched from there by who only reads them.

What belongs here: the order in which objects are written and read, so that a reader finds the old snapshot or
the new one. What does not: snapshots themselves (snapshots.py), and how a store is reached (object_store.py).

A store holds what `published/` holds: a folder of Parquet files, with the champion's and its snapshot.json,
for each snapshot, and CURRENT, which names one of them.

Invariants:
    - CURRENT is written last, and names a snapshot all of whose objects are there;
    - what is mirrored is what was published, and what is fetched is what was mirrored: every file is
      checked against its SHA-256 in snapshot.json, on this side and on that;
    - mirroring never changes the home, and nothing in the store but snapshots beyond those kept is removed;
    - a fetched snapshot takes its place as a published one does, in one step, or not at all.
"""

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from turnover_assets.errors import NoSnapshotError, ObjectStoreError
from turnover_assets.settings import Settings
from turnover_assets.storage.digests import file_sha256
from turnover_assets.storage.durable import PARTIAL, replace_file, sync, writing_into
from turnover_assets.storage.object_store import ObjectStore
from turnover_assets.storage.snapshots import (
    CURRENT,
    FACTS,
    Snapshot,
    find_current,
    prune,
    published_files,
    read_snapshot,
)

SNAPSHOT_NAME = re.compile(r"[0-9-]+_[0-9]{8}T[0-9]{6}_[0-9a-f]{6}")  # as snapshots.publish makes it
FILE_NAME = re.compile(r"([a-z][a-z0-9_]*/)*[a-z][a-z0-9_]*(\.[a-z0-9]+)+")
ATTEMPTS = 3  # each one after the first follows a publishing in the middle of fetching


@dataclass(frozen=True)
class Mirrored:
    """What mirroring came to.

    Attributes:
        name: The snapshot that is current in the store.
        written: Objects written.
        written_bytes: Their bytes.
        removed: Names of snapshots removed, oldest first.
    """

    name: str
    written: int
    written_bytes: int
    removed: tuple[str, ...]


def mirrored_name(url: str) -> str | None:
    """Name of the snapshot that is current in a store; None where there is none.

    Raises:
        ObjectStoreError: The store cannot be read, or what is there is no such name.
    """
    return _current_name(ObjectStore(url))


def _current_name(store: ObjectStore) -> str | None:
    content = store.read(CURRENT)
    if content is None:
        return None
    name = content.decode("utf-8", "replace").strip()
    if not SNAPSHOT_NAME.fullmatch(name):
        raise ObjectStoreError(store.url, "read", f"{CURRENT} does not hold the name of a snapshot")
    return name


def mirror(snapshot: Snapshot, url: str, keep: int) -> Mirrored:
    """Copy a published snapshot into a store and make it current there; what is there already stays.

    Args:
        snapshot: The snapshot; the caller has a lease on it.
        url: Address of the store's folder.
        keep: How many snapshots are left there at most, the current one among them.

    Raises:
        ObjectStoreError: It cannot be written; what was current there stays so.
        NoSnapshotError: A file of the snapshot is not as it was published.
    """
    store = ObjectStore(url)
    there = {stored.key: stored.size for stored in store.objects(snapshot.name)}
    sources = {f"{snapshot.name}/{name}": snapshot.folder / name for name in _files(snapshot)}
    missing = {key: path for key, path in sources.items() if there.get(key) != path.stat().st_size}
    for key, path in missing.items():
        _check(snapshot, path, key.removeprefix(f"{snapshot.name}/"))
        store.store(path, key)
    if _current_name_or_none(store) != snapshot.name:
        store.write(CURRENT, f"{snapshot.name}\n".encode())
    written = sum(path.stat().st_size for path in missing.values())
    return Mirrored(snapshot.name, len(missing), written, tuple(_prune(store, snapshot.name, keep)))


def _current_name_or_none(store: ObjectStore) -> str | None:
    """As _current_name; what cannot be read as a name is written anew."""
    content = store.read(CURRENT)
    return content.decode("utf-8", "replace").strip() if content else None


def _files(snapshot: Snapshot) -> list[str]:
    """The files of a snapshot; the one that says what they are is the last."""
    return [*snapshot.files, FACTS]


def _check(snapshot: Snapshot, path: Path, name: str) -> None:
    """Make sure that a file is what was published, so that nothing damaged is passed on."""
    if name != FACTS and file_sha256(path) != snapshot.files[name]["sha256"]:
        raise NoSnapshotError(
            f"{path} is not as it was published, so it is not copied anywhere. Look after the disk "
            "(`turnover doctor --deep` reads everything), and publish a new one: `turnover run --retrain`."
        )


def _prune(store: ObjectStore, current: str, keep: int) -> list[str]:
    """Remove the oldest snapshots beyond those kept; of each the file first that makes it one."""
    names = [name for name in store.folders() if SNAPSHOT_NAME.fullmatch(name)]
    others = sorted((name for name in names if name != current), key=_age)
    removed = others[: max(0, len(names) - max(1, keep))]
    for name in removed:
        keys = [stored.key for stored in store.objects(name)]
        store.remove(sorted(keys, key=lambda key: not key.endswith(f"/{FACTS}")))
    return removed


def _age(name: str) -> tuple[str, str]:
    """Sorts by when a snapshot was made, which its name says."""
    return name.rpartition("_")[0].rpartition("_")[2], name


def bring_served(settings: Settings) -> None:
    """Bring what is served (settings.served_path) up to date where it follows a store; see fetch_current."""
    if settings.snapshots_url:
        fetch_current(settings.snapshots_url, settings.followed_path)


def fetch_current(url: str, folder: Path, keep: int = 2) -> Snapshot:
    """Bring the snapshot that is current in a store into a local folder, laid out as `published/`.

    Where it is there already, this costs one small request. Files that have not changed since the snapshot
    before are not fetched again. Readers use snapshots.current and snapshots.lease on the folder.

    Args:
        url: Address of the store's folder.
        folder: The local folder, which is this function's alone; several processes may share it.
        keep: How many snapshots are left there at most, but for those that readers have a lease on.

    Returns:
        The snapshot, current in the folder now.

    Raises:
        NoSnapshotError: Nothing was published there yet.
        ObjectStoreError: The store cannot be read, or a file is not what was published; what was current in
            the folder stays so.
        OSError: The folder cannot be written; the same.
    """
    store = ObjectStore(url)
    for attempt in range(ATTEMPTS):
        name = _current_name(store)
        if name is None:
            raise NoSnapshotError(
                f"Nothing has been published in {url} yet. Let the home run that publishes there "
                "(TURNOVER_PUBLISH_URL), or correct the address."
            )
        try:
            return _bring(store, name, folder, keep)
        except _GoneError as gone:
            if attempt == ATTEMPTS - 1:
                raise ObjectStoreError(url, "read", f"{gone} is missing there") from None
    raise AssertionError("the last attempt returns or raises")


class _GoneError(Exception):
    """An object is not there, or not any more: CURRENT has moved on and the snapshot was removed."""


def _bring(store: ObjectStore, name: str, folder: Path, keep: int) -> Snapshot:
    now = find_current(folder)
    if now is not None and now.name == name:
        return now
    with writing_into(folder):
        if _whole(folder, name) is None:
            _fetch(store, name, folder, now)
        replace_file(folder / CURRENT, f"{name}\n")
    prune(folder, keep)
    return read_snapshot(folder, name)


def _whole(folder: Path, name: str) -> Snapshot | None:
    """A snapshot of the folder; None where it is not there, or not whole, when it makes way."""
    try:
        return read_snapshot(folder, name)
    except NoSnapshotError:
        if (folder / name).exists():
            (folder / name).rename(folder / f"{PARTIAL}{name}-{uuid4().hex[:6]}")
        return None


def _fetch(store: ObjectStore, name: str, folder: Path, before: Snapshot | None) -> None:
    """Fetch a snapshot whole and give it its name; another process may be quicker."""
    partial = folder / f"{PARTIAL}{name}-{uuid4().hex[:6]}"
    partial.mkdir()
    try:
        files = _fetch_facts(store, name, partial)
        for file, noted in files.items():
            _fetch_file(store, name, file, noted, partial, before)
        sync(partial)
        try:
            partial.rename(folder / name)
        except OSError:
            if _whole(folder, name) is None:
                raise
        sync(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fetch_facts(store: ObjectStore, name: str, partial: Path) -> Mapping[str, Mapping[str, Any]]:
    """Fetch snapshot.json; gives the files that it names."""
    if store.fetch(f"{name}/{FACTS}", partial / FACTS) is None:
        raise _GoneError(f"{name}/{FACTS}")
    try:
        facts = json.loads((partial / FACTS).read_text("utf-8"))
        files = {
            str(file): {n: noted[n] for n in ("bytes", "sha256")}
            for file, noted in published_files(facts).items()
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ObjectStoreError(store.url, "read", f"{name}/{FACTS} is damaged") from None
    if strange := [file for file in files if not FILE_NAME.fullmatch(file)]:
        raise ObjectStoreError(store.url, "read", f"{name}/{FACTS} names a file {strange[0]!r}")
    return files


def _fetch_file(
    store: ObjectStore,
    name: str,
    file: str,
    noted: Mapping[str, Any],
    partial: Path,
    before: Snapshot | None,
) -> None:
    """Fetch a file, or take it from the snapshot before where it has not changed; either is checked."""
    target = partial / file
    target.parent.mkdir(parents=True, exist_ok=True)
    known = before.files.get(file, {}) if before else {}
    if before and known.get("sha256") == noted["sha256"]:
        with suppress(OSError):  # another process has removed it
            shutil.copyfile(before.folder / file, target)
            sync(target, target.parent)
            if file_sha256(target) == noted["sha256"]:
                return
    key = f"{name}/{file}"
    digest = store.fetch(key, target)
    if digest is None:
        raise _GoneError(key)
    if digest != noted["sha256"]:
        raise ObjectStoreError(store.url, "used", f"{key} is not what was published (SHA-256 {digest})")
