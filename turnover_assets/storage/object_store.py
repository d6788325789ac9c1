"""Object stores: addresses such as s3://bucket/folder, reached through fsspec; nothing else of ours knows it.

What belongs here: opening a store, listing it, moving bytes in and out, and turning whatever its library
raises into one error that says what to do. What does not: what is moved, and in which order
(landed_objects.py, snapshot_mirror.py).

Credentials, region and endpoint come from where AWS's own tools take them (AWS_ACCESS_KEY_ID, ~/.aws, the
role of the machine, AWS_ENDPOINT_URL_S3 for what only speaks like S3), so that MLflow, which has a client of
its own, sees the same. They are in no address, and so in no message. Other stores that fsspec knows work too
where their library is installed.
"""

import errno
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnover_assets.errors import ObjectStoreError
from turnover_assets.storage.digests import file_sha256
from turnover_assets.storage.durable import sync

# A store that is away must not hold up a sensor, which has a minute; s3fs tries again by itself on top.
S3_OPTIONS = {
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 30,
        "retries": {"max_attempts": 3, "mode": "standard"},
    }
}
# Credentials are read anew each time, since they change while a server runs, and so are listings.
OPENING = {"skip_instance_cache": True, "use_listings_cache": False}
# What tells one content under a name from another; of these the first that a store gives.
VERSION_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified")
OF_THIS_MACHINE = ("file", "local")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing shows it.

    Attributes:
        key: Its path below the address of its store, with forward slashes.
        size: Bytes.
        version: What changes with the content: its ETag, or what the store has in place of one.
    """

    key: str
    size: int
    version: str


class ObjectStore:
    """A folder of an object store.

    Args:
        url: Its address.

    Raises:
        ObjectStoreError: The library for such addresses is not installed, or the store cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._protocol = self.url.partition("://")[0]
        with self._told("opened"):
            import fsspec

            options: Mapping[str, Any] = S3_OPTIONS if self._protocol in ("s3", "s3a") else {}
            self._files, root = fsspec.core.url_to_fs(self.url, **OPENING, **options)
            self._root = str(root).rstrip("/")

    def objects(self, folder: str = "") -> list[StoredObject]:
        """Every object below the address, or below a folder of it, by key; folders themselves are none.

        Raises:
            ObjectStoreError: It cannot be listed (never an empty list instead).
        """
        place = f"{self._root}/{folder}".rstrip("/")
        with self._told("listed"):
            found = self._files.find(place, detail=True)
            if not found and self._protocol in OF_THIS_MACHINE and not self._files.isdir(self._root):
                raise FileNotFoundError(errno.ENOENT, "there is no such folder")
        named = ((str(name)[len(self._root) + 1 :], facts) for name, facts in sorted(found.items()))
        return [_stored(key, facts) for key, facts in named if key and not key.endswith("/")]

    def folders(self) -> list[str]:
        """Names of the folders right below the address, in order.

        Raises:
            ObjectStoreError: They cannot be listed.
        """
        with self._told("listed"):
            try:
                found = self._files.ls(self._root, detail=True)
            except FileNotFoundError:
                self.objects()  # which tells a bucket that is not there from an empty folder
                return []
        names = (str(facts["name"]) for facts in found if facts["type"] == "directory")
        return sorted(posixpath.basename(name.rstrip("/")) for name in names)

    def look(self, key: str) -> StoredObject | None:
        """An object as it is now; None where there is none.

        Raises:
            ObjectStoreError: It cannot be asked.
        """
        with self._told("read"):
            try:
                facts = self._files.info(self._path(key))
            except FileNotFoundError:
                return None
        return _stored(key, facts) if facts["type"] == "file" else None

    def read(self, key: str) -> bytes | None:
        """The content of a small object; None where there is none.

        Raises:
            ObjectStoreError: It cannot be read.
        """
        with self._told("read"):
            try:
                return bytes(self._files.cat_file(self._path(key)))
            except FileNotFoundError:
                self.objects()  # which tells a bucket that is not there from an object that is not
                return None

    def fetch(self, key: str, target: Path) -> str | None:
        """Copy an object into a local file, on disk, and return its SHA-256; None where there is none.

        Raises:
            ObjectStoreError: It cannot be read.
            OSError: The local file cannot be written.
        """
        target.touch()
        with self._told("read"):
            try:
                self._files.get_file(self._path(key), str(target))
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno in DISK_FULL:
                    raise _LocalError(error) from error
                raise
        sync(target)
        return file_sha256(target)

    def store(self, source: Path, key: str) -> None:
        """Copy a local file into an object, in place of one that is there.

        Raises:
            ObjectStoreError: It cannot be written.
        """
        with self._told("written"):
            self._make_room(key)
            self._files.put_file(str(source), self._path(key))

    def write(self, key: str, content: bytes) -> None:
        """Write a small object, in place of one that is there.

        Raises:
            ObjectStoreError: It cannot be written.
        """
        with self._told("written"):
            self._make_room(key)
            self._files.pipe_file(self._path(key), content)

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects, in their order; those that are gone already count as removed.

        Raises:
            ObjectStoreError: One cannot be removed.
        """
        with self._told("cleared of what is old"):
            for key in keys:
                try:
                    self._files.rm_file(self._path(key))
                except FileNotFoundError:
                    continue

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _make_room(self, key: str) -> None:
        """Make the folder of an object where the store has folders; buckets are never made."""
        if self._protocol in OF_THIS_MACHINE:
            self._files.makedirs(posixpath.dirname(self._path(key)), exist_ok=True)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn what the store's library raises into an error for people."""
        try:
            yield
        except ObjectStoreError:
            raise
        except _LocalError as error:
            raise error.cause from None
        except Exception as error:
            raise ObjectStoreError(self.url, what, _problem(error)) from error


class _LocalError(Exception):
    """A problem of this machine's disk that came up in the middle of a transfer."""

    def __init__(self, cause: OSError) -> None:
        self.cause = cause
        super().__init__(str(cause))


def _stored(key: str, facts: Mapping[str, Any]) -> StoredObject:
    mark = next((facts[name] for name in VERSION_MARKS if facts.get(name)), "")
    return StoredObject(key, int(facts["size"]), str(mark).strip('"'))


def _problem(error: Exception) -> str:
    """What went wrong, in a line."""
    if isinstance(error, ImportError):
        return f"{error}. The extra `s3` brings what is needed: pip install 'turnover-assets[s3]'"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [""])[0] or type(error).__name__
