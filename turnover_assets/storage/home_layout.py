"""The version of a data home: which release wrote it last, and what a newer one changes in an older one.

What belongs here: home.json, the refusal of a home that a newer release has changed, and the numbered steps
of the home as a whole. What does not: the steps of the warehouse, which carries a number of its own since it
can be put back or rebuilt alone (migrations.py).

    home.json   {"layout": 2, "release": "0.2.0"}   the layout, and the release that used the home last

A home without the file is one of release 0.1.0, or new.

Invariants:
    - a newer layout is refused before anything is written;
    - steps are made in the order of their numbers while nobody runs, and each is noted once it is whole;
    - a step does no harm where it was made before: a kill between a step and its note repeats it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from turnover_assets import __version__
from turnover_assets.core.tables import has_table
from turnover_assets.errors import HomeError, NewerHomeError
from turnover_assets.settings import Settings
from turnover_assets.storage.durable import replace_file
from turnover_assets.storage.landing import mend_kept
from turnover_assets.storage.landing_folder import LandedFile
from turnover_assets.storage.manifest import FILES
from turnover_assets.storage.warehouse import Warehouse

FILE = "home.json"
FIRST_LAYOUT = 1  # of release 0.1.0, which had no such file
CONTENT = ("warehouse.duckdb", "published", "mlflow", "dagster", "raw")  # one of these makes a folder a home
Step = Callable[[Settings], None]


@dataclass(frozen=True)
class Layout:
    """What home.json says.

    Attributes:
        layout: Number of the layout.
        release: The release that used the home last; empty where that is not known.
    """

    layout: int
    release: str


def _keep_landed_files(settings: Settings) -> None:
    """Release 0.1.0 kept no bytes of what it landed: keep those of files that are still there, unchanged."""
    if not settings.warehouse_path.is_file():
        return
    warehouse = Warehouse.of(settings)
    with warehouse.transaction() as con:
        if not has_table(con, FILES):
            return
        landed = con.execute(f"SELECT path, name, digest FROM {FILES} WHERE status = 'accepted'").fetchall()
    files = [LandedFile(Path(path), name, digest) for path, name, digest in landed]
    mend_kept(warehouse, settings.panel_spec, [file for file in files if file.path.is_file()])


STEPS: Mapping[int, Step] = {2: _keep_landed_files}
LAYOUT = max(STEPS)


def read_layout(home: Path) -> Layout | None:
    """The layout of a home; None where the folder is not one yet.

    Raises:
        HomeError: home.json cannot be read.
    """
    path = home / FILE
    try:
        found = json.loads(path.read_text("utf-8"))
        return Layout(int(found["layout"]), str(found["release"]))
    except FileNotFoundError:
        return Layout(FIRST_LAYOUT, "") if any((home / name).exists() for name in CONTENT) else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HomeError(
            home,
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error})",
            "Put it back from a backup, or delete it: the home then counts as one of release 0.1.0, and the "
            "steps from there, which do no harm twice, are made again.",
        ) from None


def check_layout(home: Path, wanted: int = LAYOUT) -> Layout | None:
    """Make sure that this release knows the layout of a home; nothing is written.

    Args:
        home: The home.
        wanted: The newest layout that is known.

    Returns:
        The layout; None where the folder is not a home yet.

    Raises:
        NewerHomeError: A newer release has changed it.
        HomeError: home.json cannot be read.
    """
    found = read_layout(home)
    if found and found.layout > wanted:
        raise NewerHomeError(f"The data home {home}", found.layout, wanted, found.release, __version__)
    return found


def bring_layout_up(settings: Settings, found: Layout | None, steps: Mapping[int, Step] = STEPS) -> list[int]:
    """Bring a home to the layout of this release; the caller keeps runs away where steps are to be made.

    Args:
        settings: The settings.
        found: The layout that the home had before anything was made in it.
        steps: In place of this release's steps; the greatest number is the layout to reach.

    Returns:
        Numbers of the steps that were made.

    Raises:
        HomeError: Something in the home cannot be read or written; the steps before stay noted.
    """
    home, wanted = settings.home.absolute(), max(steps)
    missing = [number for number in sorted(steps) if found and number > found.layout]
    for number in missing:
        steps[number](settings)
        _note(home, Layout(number, __version__))
    if found is None or found.release != __version__:
        _note(home, Layout(wanted, __version__))
    return missing


def _note(home: Path, layout: Layout) -> None:
    replace_file(home / FILE, json.dumps(asdict(layout)) + "\n")
