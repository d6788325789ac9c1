"""What is made of one snapshot to answer requests from.

What belongs here: what is loaded when a snapshot is taken into use, and given back after. What does not:
following CURRENT (follower.py), and what is asked (routes/).
"""

from collections.abc import Iterator

from fastapi import Request

from turnover_assets.serving.lookups import Lookups
from turnover_assets.serving.origin import origin_of
from turnover_assets.serving.view import View
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshots import Snapshot

# Tables that most requests ask for, held in memory; small beside the history of a retailer.
HOT = ("forecasts", "aggregates")


class Served:
    """One snapshot, ready to be asked; the follower makes it, and closes it once nobody uses it any more.

    Args:
        snapshot: The snapshot.
        settings: Settings, with the panel that it must be of.

    Attributes:
        origin: What every answer names.
        view: Its tables.
        lookups: Rows by series that are ready to be sent, by the name of what they are rows of.

    Raises:
        NoSnapshotError: It is of another panel, or cannot be read.
    """

    def __init__(self, snapshot: Snapshot, settings: Settings) -> None:
        self.origin = origin_of(snapshot)
        self.view = View(snapshot, settings.panel_spec)
        self.view.keep(*HOT)
        self.lookups: dict[str, Lookups] = {}

    def close(self) -> None:
        """Give back what is held."""
        self.view.close()


def served(request: Request) -> Iterator[Served]:
    """A dependency of routes: the snapshot in use, whole until the request has been answered.

    Raises:
        NoSnapshotError: There is none yet.
    """
    with request.app.state.follower.use() as found:
        yield found
