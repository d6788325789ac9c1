"""What can be read in the data home without Dagster: the current snapshot, the disk, open incidents.

What belongs here: those readings. What does not: what the tables say (core/operator_metrics.py).
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from turnover_assets.core.operator_metrics import Reading, measure_readings, snapshot_readings
from turnover_assets.observability.incidents import open_incidents
from turnover_assets.settings import Settings
from turnover_assets.storage.measures import MEASURES
from turnover_assets.storage.snapshots import CURRENT, lease

PARTS = ("alerts", "dagster", "landing", "mlflow", "published", "raw", "reports", "tmp")  # folders
WAREHOUSE, OTHER = "warehouse", "other"


def published_readings(settings: Settings) -> Iterator[Reading]:
    """What the current snapshot says; nothing where none has been published yet.

    Raises:
        NoSnapshotError: CURRENT names one that cannot be read.
    """
    if not (settings.published_path / CURRENT).exists():
        return
    with lease(settings.published_path) as snapshot:
        yield from snapshot_readings(snapshot.facts)


def quality_readings(settings: Settings) -> Iterator[Reading]:
    """The published measures of accuracy, drift and inputs at the newest cutoff.

    Raises:
        NoSnapshotError: CURRENT names a snapshot that cannot be read.
        OSError: The table cannot be read.
    """
    if not (settings.published_path / CURRENT).exists():
        return
    with lease(settings.published_path) as snapshot:
        if MEASURES in snapshot.facts["tables"]:  # older releases published none
            yield from measure_readings(snapshot.read(MEASURES), settings.panel_spec)


def incident_readings(settings: Settings) -> Iterator[Reading]:
    """Open incidents by severity."""
    for severity, count in sorted(open_incidents(settings.incidents_path).items()):
        yield Reading("turnover_open_incidents", float(count), (severity,))


def size_readings(settings: Settings) -> Iterator[Reading]:
    """Bytes of each part of the home, as allocated on disk; files that go away meanwhile do not count."""
    home = settings.home.absolute()
    if not home.is_dir():
        return
    sizes = dict.fromkeys((*PARTS, WAREHOUSE, OTHER), 0)
    for entry in home.iterdir():
        sizes[_part_of(entry.name)] += _bytes_below(entry) if entry.is_dir() else _bytes_of(entry)
    for part, size in sorted(sizes.items()):
        yield Reading("turnover_home_bytes", float(size), (part,))


def _part_of(name: str) -> str:
    """The part that an entry of the home belongs to; old warehouses count as warehouse."""
    if name in PARTS:
        return name
    return WAREHOUSE if name.startswith(f"{WAREHOUSE}.") else OTHER


def _bytes_below(folder: Path) -> int:
    return sum(_bytes_of(Path(place) / name) for place, _, names in os.walk(folder) for name in names)


def _bytes_of(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0


def space_readings(settings: Settings) -> Iterator[Reading]:
    """Room on the file system of the home, or of the nearest folder above it that is there."""
    home = settings.home.absolute()
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    usage = shutil.disk_usage(place)
    yield Reading("turnover_home_free_bytes", float(usage.free))
    yield Reading("turnover_home_capacity_bytes", float(usage.total))
