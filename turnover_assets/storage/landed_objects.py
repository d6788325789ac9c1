"""Objects of a store that are copied into the landing folder, where they land like any other file.

What belongs here: which objects are new or changed, the names of their copies, and the memory of both. What
does not: landing (landing.py), and how a store is reached (object_store.py).

Invariants:
    - the store is only ever read;
    - a copy has its name only once it is whole, on disk, and of the version that was listed;
    - a file that is not the copy of an object is never replaced, and no two objects share a copy;
    - what is remembered may be deleted at any time: objects are then read once more, and copies found again.

An object that was copied is not copied again while key, size and version stay, so a copy that a person
removes from the landing folder, since it has landed, stays removed.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from turnover_assets.errors import TurnoverError
from turnover_assets.settings import Settings
from turnover_assets.storage.digests import file_sha256
from turnover_assets.storage.durable import PARTIAL, replace_file, writing_into
from turnover_assets.storage.landing_folder import UNFINISHED_SUFFIXES
from turnover_assets.storage.object_store import ObjectStore, StoredObject

NAME_BYTES = 150  # of a part of a copy's path before a fingerprint is added; file systems take 255
CONTROL = dict.fromkeys((*range(32), 127), "_")
FACTS = ("size", "version", "name", "sha256")
Copies = Mapping[str, Mapping[str, Any]]  # by the address of their object: FACTS


@dataclass(frozen=True)
class Fetched:
    """What a look at the store came to.

    Attributes:
        names: Names of the copies that are new, inside the landing folder.
        waiting: How many are left for the next look, for want of time or since they changed meanwhile.
    """

    names: tuple[str, ...] = ()
    waiting: int = 0


def fetch_objects(settings: Settings, *, seconds: float | None = None) -> Fetched:
    """Copy what is new into the watched folder, where the settings name a store; see fetch_new."""
    if not settings.landing_url:
        return Fetched()
    return fetch_new(
        settings.landing_url, settings.landing_path, settings.landed_objects_path, seconds=seconds
    )


def fetch_new(url: str, landing: Path, memory: Path, *, seconds: float | None = None) -> Fetched:
    """Copy the objects that are new or changed into the landing folder.

    Args:
        url: Address of the store's folder.
        landing: The landing folder.
        memory: The file that remembers what was copied.
        seconds: After which no further object is begun; None for all.

    Raises:
        ObjectStoreError: The store cannot be listed or read; copies made by then stay and are remembered.
        TurnoverError: The landing folder is missing or cannot be written.
    """
    store, began = ObjectStore(url), time.monotonic()
    known = _recall(memory)
    mine = {key: copy for key, copy in known.items() if key.startswith(f"{store.url}/")}
    wanted = [stored for stored in store.objects() if _lands(stored.key) and _is_new(store, stored, mine)]
    if not wanted:
        return Fetched()
    if not landing.is_dir():
        raise _unwritable(url, landing, "it is not there")
    fetched: list[str] = []
    waiting = 0
    try:
        with writing_into(landing):
            for stored in wanted:
                if seconds is not None and fetched and time.monotonic() - began > seconds:
                    waiting += 1
                    continue
                name = _fetch(store, stored, landing, mine)
                waiting += name is None
                fetched += [name] if name else []
    except OSError as error:
        raise _unwritable(url, landing, error.strerror or str(error)) from error
    finally:
        _remember(memory, {**known, **mine})
    return Fetched(tuple(fetched), waiting)


def _unwritable(url: str, landing: Path, problem: str) -> TurnoverError:
    return TurnoverError(
        f"Objects of {url} cannot be copied into the landing folder {landing}: {problem}. Permit writing "
        "there and make room, or leave TURNOVER_LANDING unset, so that the folder is in the home."
    )


def _lands(key: str) -> bool:
    """As for files of the folder: hidden and unfinished ones do not."""
    *folders, name = key.split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") for part in (*folders, name))
    return not hidden and not name.endswith(UNFINISHED_SUFFIXES)


def _is_new(store: ObjectStore, stored: StoredObject, known: Copies) -> bool:
    copy = known.get(f"{store.url}/{stored.key}")
    return copy is None or (copy["size"], copy["version"]) != (stored.size, stored.version)


def _fetch(
    store: ObjectStore, stored: StoredObject, landing: Path, known: dict[str, Mapping[str, Any]]
) -> str | None:
    """Copy an object and remember it; None where it was gone or changed before it was whole."""
    address = f"{store.url}/{stored.key}"
    partial = landing / f"{PARTIAL}{uuid4().hex}"
    try:
        digest = store.fetch(stored.key, partial)
        if digest is None or store.look(stored.key) != stored or partial.stat().st_size != stored.size:
            return None
        name = _put_in_place(partial, digest, stored.key, landing, known, address)
    finally:
        partial.unlink(missing_ok=True)
    known[address] = {"size": stored.size, "version": stored.version, "name": name, "sha256": digest}
    return name


def _put_in_place(
    partial: Path,
    digest: str,
    key: str,
    landing: Path,
    known: Copies,
    address: str,
) -> str:
    """Give a whole copy the first name that is free, its own, or of just this content."""
    others = {copy["name"]: copy for other, copy in known.items() if other != address}
    for name in names_for(key):
        path = landing / name
        if name in others:
            continue
        if not _can_hold(landing, path):
            continue
        if path.exists() and not _may_replace(path, digest, known.get(address), name):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(path)
        return name
    raise AssertionError("names do not end")


def names_for(key: str) -> Iterator[str]:
    """Names for the copy of an object, the plainest first: its key, then with a fingerprint of the key.

    Unlike a key, a name has no empty part, no `..`, and no part that is too long.
    """
    parts = [part for part in key.translate(CONTROL).split("/") if part not in ("", ".", "..")] or ["object"]
    plain = [_shortened(part) for part in parts]
    mark = sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
    if "/".join(plain) == key:
        yield key
    *folders, last = plain
    stem, dot, endings = last.partition(".")
    yield "/".join([*folders, f"{stem}~{mark[:8]}{dot}{endings}"])
    # Where a part of the path is a file already, the copy stands beside that file.
    yield f"{stem}~{mark}{dot}{endings}"
    while True:
        yield f"{stem}~{mark[:8]}-{uuid4().hex}{dot}{endings}"


def _shortened(part: str) -> str:
    """A part of a path, without its middle where it is too long; its end tells how it is compressed."""
    data = part.encode("utf-8", "surrogateescape")
    if len(data) <= NAME_BYTES:
        return part
    head, tail = data[: NAME_BYTES - 40], data[-40:]
    return f"{head.decode('utf-8', 'ignore')}…{tail.decode('utf-8', 'ignore')}"


def _can_hold(landing: Path, path: Path) -> bool:
    """Whether a file may be put there: no folder has the name, and no file that of a folder above it."""
    above = [landing / parent for parent in PurePosixPath(path.relative_to(landing)).parents][:-1]
    return not path.is_dir() and all(not folder.exists() or _is_own_folder(folder) for folder in above)


def _is_own_folder(path: Path) -> bool:
    """Links to folders are not looked into, so nothing in them would land."""
    return path.is_dir() and not path.is_symlink()


def _may_replace(path: Path, digest: str, before: Mapping[str, Any] | None, name: str) -> bool:
    """Whether a file is the object's last copy, or has the same content anyway."""
    there = _digest(path)
    return there == digest or bool(before and before["name"] == name and before["sha256"] == there)


def _digest(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return ""


def _recall(memory: Path) -> dict[str, Mapping[str, Any]]:
    """What was copied, by address; nothing where the file is missing or damaged."""
    try:
        found = json.loads(memory.read_text("utf-8"))
        return {str(key): {**copy, **{n: copy[n] for n in FACTS}} for key, copy in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}


def _remember(memory: Path, known: Copies) -> None:
    """Keep what was copied; without it objects are read once more, nothing else."""
    with suppress(OSError):
        replace_file(memory, json.dumps(known, indent=1))
