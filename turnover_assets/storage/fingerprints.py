"""Remembered fingerprints: files that were read before and have not changed since need not be read again.

What belongs here: when a remembered fingerprint may stand for reading, and the file that keeps them. What
does not: what lands. That is decided by the bytes, which landing copies and fingerprints again.

Invariants:
    - a fingerprint is remembered only of a file whose stamp was the same before and after it was read, and
      had not moved for SETTLED_SECONDS by then: a younger stamp might not move with the next write;
    - it is used only while the whole stamp is the same. The time of status change is part of it, which
      every write moves and no program can set back, whatever it does to the time of modification;
    - what remembers them may be deleted at any time, and counts as empty where it is damaged.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from turnover_assets.storage.durable import replace_file
from turnover_assets.storage.reader import fingerprint

# Clocks of file systems tick up to 2 s apart, and may be behind ours; a write through a memory map moves the
# stamp only when Linux writes the page back, every 30 s.
SETTLED_SECONDS = 60


class Stamp(NamedTuple):
    """What tells without reading it that a file has changed; times in nanoseconds."""

    size: int
    inode: int
    modified: int
    changed: int


class Fingerprint(NamedTuple):
    """The SHA-256 of a file's content, hexadecimal, and its stamp when that was read; None: do not use it."""

    digest: str
    stamp: Stamp | None


def look(path: Path, known: Fingerprint | None = None) -> Fingerprint:
    """The fingerprint of a file: the known one where it may stand for reading, otherwise from its bytes.

    Raises:
        UnreadableFileError: It cannot be read.
    """
    began, stamp = time.time_ns(), _stamp(path)
    if known and stamp and known.stamp == stamp:
        return known
    digest = fingerprint(path)
    is_settled = stamp is not None and stamp.changed < began - SETTLED_SECONDS * 10**9
    return Fingerprint(digest, stamp if is_settled and stamp == _stamp(path) else None)


def _stamp(path: Path) -> Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return Stamp(stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)


def recall(memory: Path) -> dict[str, Fingerprint]:
    """What is remembered, by path; nothing where the file is missing or damaged."""
    try:
        check, _, text = memory.read_text("utf-8").partition("\n")
        if check != _check(text):
            return {}
        found = json.loads(text).items()
        return {path: Fingerprint(digest, Stamp(*stamp)) for path, (digest, stamp) in found}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def remember(memory: Path, known: Mapping[str, Fingerprint]) -> None:
    """Keep fingerprints that may be used again, by path, in place of all before."""
    text = json.dumps(known)
    with suppress(OSError):  # without it the next look is slower, nothing else
        replace_file(memory, f"{_check(text)}\n{text}")


def _check(text: str) -> str:
    return sha256(text.encode()).hexdigest()
