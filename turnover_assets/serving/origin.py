"""Where answers come from: what every one of them names, and what tells versions of one apart.

What belongs here: the facts of a snapshot that answers repeat. What does not: the snapshot's content.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, Field

from turnover_assets import __version__
from turnover_assets.serving.formats import Format
from turnover_assets.storage.snapshots import Snapshot

# Answers may be kept by the caller alone, who asks each time whether they still hold.
CACHING = {"Cache-Control": "private, no-cache", "Vary": "Accept"}


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
    data_version: str = Field(
        description="Fingerprint of what they were made from.", examples=["105fc200829f"]
    )


def origin_of(snapshot: Snapshot) -> Origin:
    """Where answers from a snapshot come from."""
    facts = snapshot.facts
    return Origin(
        snapshot=snapshot.name,
        cutoff=str(facts["cutoff"]),
        model_version=int(facts["model"]["version"]),
        data_version=str(facts["data_version"]),
    )


def entity_tag(origin: Origin, format_: Format, test: str = "") -> str:
    """What tells versions of an answer apart: a snapshot never changes, so its name and the format do.

    Args:
        origin: Where it comes from.
        format_: Its format.
        test: What tells the caller's part in a test from that of others; empty without one.
    """
    return f'"{origin.snapshot}.{format_.name}.{__version__}{test}"'


def is_known(known: str | None, tag: str) -> bool:
    """Whether a header If-None-Match names a tag.

    Example:
        >>> is_known('"a", W/"b"', '"b"')
        True
    """
    return is_any(known) or (known is not None and tag in _tags(known))


def is_any(known: str | None) -> bool:
    """Whether it is `*`, which whatever there is matches: so it must be known that there is something.

    Example:
        >>> is_any("*"), is_any('"*"')
        (True, False)
    """
    return known is not None and "*" in _tags(known)


def _tags(known: str) -> list[str]:
    return [each.strip().removeprefix("W/") for each in known.split(",")]
