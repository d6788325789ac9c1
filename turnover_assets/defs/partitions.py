"""Partitions: one for each landed file, and one for each past cutoff.

What belongs here: the dynamic partitions, and the way from a partition key to its file.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from turnover_assets.storage.landing_folder import LandedFile, content_digest, list_folder, readable_name

CUTOFFS = dg.DynamicPartitionsDefinition(name="cutoffs")
LANDED_FILES = dg.DynamicPartitionsDefinition(name="landed_files")


def name_of(key: str) -> str:
    """The file name in a partition key."""
    return key.rpartition("@")[0]


def digest_of(key: str) -> str:
    """The beginning of the content's SHA-256 in a partition key."""
    return key.rpartition("@")[2]


def find_files(folder: Path, keys: Sequence[str]) -> dict[str, LandedFile]:
    """The files of partition keys, where they are still there with the same content.

    Only files whose name is asked for are read; one that cannot be is found too, so that it is refused
    with its reason and keeps no other out.
    """
    wanted, names = set(keys), {name_of(key) for key in keys}
    found = {}
    for path in list_folder(folder):
        unread = LandedFile(path, readable_name(path, folder), "")
        if name_of(unread.partition_key) in names:
            file = LandedFile(path, unread.name, content_digest(path))
            if file.partition_key in wanted:
                found[file.partition_key] = file
    return found


def ranges(keys: Iterable[str], order: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The first and last key of each unbroken run of `keys` in the partitions' order.

    Example:
        >>> list(ranges(["b", "c", "e"], ["a", "b", "c", "d", "e"]))
        [('b', 'c'), ('e', 'e')]
    """
    wanted = set(keys)
    first = last = None
    for key in order:
        if key in wanted:
            first, last = first or key, key
        elif first is not None and last is not None:
            yield first, last
            first = last = None
    if first is not None and last is not None:
        yield first, last


def range_tags(first: str, last: str) -> dict[str, str]:
    """Run tags that make one run of all partitions from `first` to `last`."""
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
