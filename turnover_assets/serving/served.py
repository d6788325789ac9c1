"""What is made of one snapshot to answer requests from.

What belongs here: what is loaded when a snapshot is taken into use, and given back after. What does not:
following CURRENT (follower.py), and what is asked (routes/).
"""

from collections.abc import Iterator

import duckdb
from fastapi import Request

from turnover_assets.errors import NoSnapshotError
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.champion import InUse
from turnover_assets.serving.lookups import Lookups
from turnover_assets.serving.origin import origin_of
from turnover_assets.serving.view import View
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshots import Snapshot

# Tables that most requests ask for are held in memory: these always, history and attributes where they are
# small; they take some three times the memory of their files.
HOT = ("forecasts", "aggregates")
SMALL_BYTES = 50_000_000


class Served:
    """One snapshot, ready to be asked; the follower makes it, and closes it once nobody uses it any more.

    Args:
        snapshot: The snapshot.
        settings: Settings, with the panel that it must be of.

    Attributes:
        origin: What every answer names.
        view: Its tables.
        lookups: Rows by series that are ready to be sent, by the name of what they are rows of.
        champion: The model that is asked beside it; None where nobody asks models of it.

    Raises:
        NoSnapshotError: It is of another panel, or cannot be read.
    """

    def __init__(self, snapshot: Snapshot, settings: Settings) -> None:
        try:
            self.origin = origin_of(snapshot)
        except (LookupError, TypeError, ValueError) as error:
            raise unusable(snapshot, error) from None
        self.view = View(snapshot, settings.panel_spec)
        self.lookups: dict[str, Lookups] = {}
        self.champion: InUse | None = None
        try:
            self.view.keep(*HOT, *_small(snapshot, settings.panel_spec))
        except duckdb.Error as error:
            self.view.close()
            raise unusable(snapshot, error) from None

    def close(self) -> None:
        """Give back what is held."""
        self.view.close()
        if self.champion is not None:
            self.champion.close()


def _small(snapshot: Snapshot, panel: PanelSpec) -> list[str]:
    """History and attributes, where they are small."""
    names = [panel.series.name, *(table.name for table in panel.static)]
    tables = snapshot.facts["tables"]
    return [name for name in names if name in tables and tables[name]["bytes"] <= SMALL_BYTES]


def unusable(snapshot: Snapshot, error: Exception) -> NoSnapshotError:
    """What is said of a snapshot that cannot be asked."""
    return NoSnapshotError(
        f"The published snapshot {snapshot.name!r} cannot be served ({type(error).__name__}: {error}). Run "
        "`turnover run` to publish a new one."
    )


def served(request: Request) -> Iterator[Served]:
    """A dependency of routes: the snapshot in use, whole until the request has been answered.

    Raises:
        NoSnapshotError: There is none yet.
    """
    with request.app.state.follower.use() as found:
        yield found
