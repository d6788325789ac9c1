"""Writing so that a kill or a power cut leaves the old or the new, and knowing whose leftovers are dead.

What belongs here: putting files on disk, replacing them in one step, locks that end with their process, and
the removal of what killed writers left. What does not: what the files hold.

The locks are the operating system's (`flock`), so they need no file of their own and no process has to be
alive to give one back. They work between processes of one machine, and between containers on one volume.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

PARTIAL = ".partial-"


def sync(*paths: Path) -> None:
    """Make sure that what was written is on disk, for files and for folders."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder, on disk, where it is missing.

    Raises:
        OSError: It cannot be made.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)


def replace_file(path: Path, content: str) -> None:
    """Write a small file in one step: readers find the old content or the new one, never a part.

    Raises:
        OSError: It cannot be written; the old content stays.
    """
    fresh = path.with_name(f"{PARTIAL}{path.name}-{uuid4().hex[:6]}")
    try:
        fresh.write_text(content, "utf-8")
        sync(fresh)
        fresh.replace(path)
        sync(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def shared(path: Path) -> Iterator[int]:
    """Share a file or folder with others until the block ends; gives its open handle.

    Raises:
        OSError: It is not there, or cannot be locked.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield handle
    finally:
        os.close(handle)


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Try to have a file or folder for oneself until the block ends; False where others share it.

    Never waits. What is not there or cannot be opened counts as shared. Where the file system has no such
    locks, nobody else could have one, and the answer is True.
    """
    try:
        # Network file systems lock exclusively only what is open for writing, which a folder cannot be.
        handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass
        yield True
    finally:
        os.close(handle)


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Tell other writers that partial files in a folder are in use, after those of dead writers are gone.

    Raises:
        OSError: The folder cannot be made or opened.
    """
    make_folder(folder)
    with exclusive(folder) as alone:
        if alone:
            remove_partial(folder)
    with shared(folder):
        yield


def remove_partial(folder: Path) -> None:
    """Remove every partial file and folder; only for who has the folder for oneself."""
    for path in folder.glob(f"{PARTIAL}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
