"""The panel that a home was built with, held against the one that is to be used.

What belongs here: finding the home's panel among its kept files, and the refusal of one that the home cannot
follow. What does not: which differences matter (core/panel_changes.py). The warehouse is not opened, so a
sensor may ask at every look; nothing is written but the cache of fingerprints.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress

from turnover_assets.core.panel_changes import changed_sources, layout_changes, place_of, unfed_tables
from turnover_assets.errors import PanelChangedError, UnreadableFileError
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage.kept import KeptFiles, kept_files
from turnover_assets.storage.landing_folder import LandedFile
from turnover_assets.storage.reader import read_head

FindFiles = Callable[[], Iterable[LandedFile]]


def check_panel(settings: Settings, find: FindFiles = tuple) -> None:
    """Make sure that the home can go on with the panel.

    A panel with which a file was accepted here passes at once. Any other must have the layout of the newest
    accepted file's, and a table, or names of columns in the files, that the home does not know need a new
    file that has them: else the home would go on as if those columns were empty.

    Args:
        settings: The settings, with home and panel.
        find: Gives the files that land next; asked only where the panel has something the home does not know.

    Raises:
        PanelChangedError: With everything that changed; nothing was written.
        HomeError: Kept files cannot be read.
    """
    kept, panel = kept_files(settings.warehouse_path.parent), settings.panel_spec
    if kept.has_panel(panel.digest):
        return
    accepted = [row for row in (*kept.records(), *kept.pending()) if row["status"] == "accepted"]
    if not accepted:
        return
    newest = max(accepted, key=lambda row: int(row["file_no"]))["panel_digest"]
    before = kept.panel(newest)
    problems = layout_changes(before, panel, {row["table_name"] for row in accepted})
    if not problems:
        known = [kept.panel(digest) for digest in sorted({row["panel_digest"] for row in accepted})]
        problems = _unfed(before, panel, unfed_tables(known, panel), kept, find)
    if problems:
        raise PanelChangedError(panel.name, settings.home.absolute(), problems, kept.panel_path(newest))


def _unfed(
    before: PanelSpec, panel: PanelSpec, tables: Collection[str], kept: KeptFiles, find: FindFiles
) -> list[tuple[str, str]]:
    """The tables that no file fits: none that was accepted, and none that lands next."""
    fitting = set(_tables_of_new(find(), panel, kept)) if tables else set()
    return [
        (place_of(panel, table), f"no file has its columns: {changed_sources(before, panel, table)}")
        for table in tables
        if table not in fitting
    ]


def _tables_of_new(files: Iterable[LandedFile], panel: PanelSpec, kept: KeptFiles) -> Iterator[str]:
    for file in files:
        if not kept.has(file.digest):
            with suppress(UnreadableFileError):
                yield read_head(file.path, panel).table
