"""What is made of one snapshot to answer requests from: its tables, and what every answer names.

What belongs here: what is loaded when a snapshot is taken into use, and given back after. What does not:
following CURRENT (follower.py), and what is asked (routes/).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from fastapi import Request
from pydantic import BaseModel, Field

from turnover_assets.serving.view import View
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshots import Snapshot

# Tables that most requests ask for, held in memory; small beside the history of a retailer.
HOT = ("forecasts", "aggregates")


@dataclass(frozen=True)
class Origin:
    """Where an answer comes from; every answer names it.

    Attributes:
        snapshot: Name of the snapshot.
        cutoff: Last period known to its forecasts, as the panel labels it.
        model_version: Version of the champion that made them.
        data_version: Fingerprint of the data and settings that they were made from.
    """

    snapshot: str
    cutoff: str
    model_version: int
    data_version: str

    @cached_property
    def headers(self) -> dict[str, str]:
        """The same as headers of an answer."""
        return {
            "X-Turnover-Snapshot": self.snapshot,
            "X-Turnover-Cutoff": self.cutoff,
            "X-Turnover-Model-Version": str(self.model_version),
            "X-Turnover-Data-Version": self.data_version,
        }

    def document(self) -> dict[str, Any]:
        """The same as the object `served` of a JSON answer."""
        return asdict(self)


class OriginDocument(BaseModel):
    """Where an answer comes from; the object `served` of a JSON answer."""

    snapshot: str = Field(description="Name of the snapshot.", examples=["2017-06-10_20170613T040512_a7c7db"])
    cutoff: str = Field(description="Last period known to its forecasts.", examples=["2017-06-10"])
    model_version: int = Field(description="Version of the champion that made them.", examples=[4])
    data_version: str = Field(description="Fingerprint of what they were made from.", examples=["105fc200829f"])


def origin_of(snapshot: Snapshot) -> Origin:
    """Where answers from a snapshot come from."""
    facts = snapshot.facts
    return Origin(
        snapshot=snapshot.name,
        cutoff=str(facts["cutoff"]),
        model_version=int(facts["model"]["version"]),
        data_version=str(facts["data_version"]),
    )


class Served:
    """One snapshot, ready to be asked; the follower makes it, and closes it once nobody uses it any more.

    Args:
        snapshot: The snapshot.
        settings: Settings, with the panel that it must be of.

    Raises:
        NoSnapshotError: It is of another panel, or cannot be read.
    """

    def __init__(self, snapshot: Snapshot, settings: Settings) -> None:
        self.origin = origin_of(snapshot)
        self.view = View(snapshot, settings.panel_spec)
        self.view.keep(*HOT)

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
