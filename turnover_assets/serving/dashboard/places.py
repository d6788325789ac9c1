"""The map: members of a level where they are, as large as their forecast, coloured by their change.

What belongs here: projecting places, sizes and classes of change. What does not: markup and colours.
"""

import math
from dataclasses import dataclass

from turnover_assets.panel import PanelSpec
from turnover_assets.serving.dashboard.members import column_types, name_sql, place_table
from turnover_assets.serving.dashboard.shown import Member, Shown

WIDTH, LEAST_HEIGHT, MOST_HEIGHT = 600.0, 320.0, 640.0
MARGIN = 26.0
LARGEST, SMALLEST = 17.0, 3.5  # radius
# Ends of the classes of change, and their names for the stylesheet, from far below to far above.
CLASSES = (-0.15, -0.05, -0.01, 0.01, 0.05, 0.15)
NAMES = ("down-3", "down-2", "down-1", "same", "up-1", "up-2", "up-3")
FAR = 3.0  # spans of the middle half beyond which a place would shrink all others to a dot


@dataclass(frozen=True)
class Place:
    """A member on the map."""

    member: Member
    x: float
    y: float
    radius: float
    kind: str


@dataclass(frozen=True)
class Map:
    """The map of a level.

    Attributes:
        level: The level.
        places: Largest first, so that small ones lie on top.
        elsewhere: Members far away from all others, or without a place.
        height: Of the drawing, whose width is WIDTH.
    """

    level: str
    places: list[Place]
    elsewhere: list[Member]
    height: float


def change_class(change: float | None) -> str:
    """The class of a change.

    Example:
        >>> change_class(-0.2), change_class(0.0), change_class(0.07), change_class(None)
        ('down-3', 'same', 'up-2', 'unknown')
    """
    if change is None:
        return "unknown"
    return NAMES[sum(change >= end for end in CLASSES)]


def map_of(shown: Shown, panel: PanelSpec) -> Map | None:
    """The map; None where the panel knows no places."""
    table = place_table(panel)
    if table is None or not shown.view.has(table.name):
        return None
    level = table.keys[0]
    rows = shown.view.records(
        f"SELECT {name_sql(level, column_types(panel)[level])} AS name, any_value(latitude) AS latitude, "
        f"any_value(longitude) AS longitude FROM {table.name} WHERE abs(latitude) <= 90 "
        "AND abs(longitude) <= 180 GROUP BY 1"
    )
    spots = {row["name"]: (row["longitude"], row["latitude"]) for row in rows}
    members = list(shown.members.get(level, {}).values())
    known = {member.name: spots[member.name] for member in members if member.name in spots}
    near = _near(known)
    if len(near) < 2:
        return None
    return _drawn(level, members, near)


def _near(spots: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Without those far away, such as overseas ones and slips."""
    limits = [_limits([spot[axis] for spot in spots.values()]) for axis in (0, 1)] if spots else []
    return {
        name: spot
        for name, spot in spots.items()
        if all(low <= value <= high for value, (low, high) in zip(spot, limits, strict=True))
    }


def _limits(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    reach = FAR * max(high - low, 0.5)
    return low - reach, high + reach


def _drawn(level: str, members: list[Member], near: dict[str, tuple[float, float]]) -> Map:
    west, east = min(x for x, _ in near.values()), max(x for x, _ in near.values())
    south, north = min(y for _, y in near.values()), max(y for _, y in near.values())
    narrow = math.cos(math.radians((south + north) / 2))  # a degree of longitude over one of latitude
    scale = (WIDTH - 2 * MARGIN) / max((east - west) * narrow, 1e-6)
    scale = min(scale, (MOST_HEIGHT - 2 * MARGIN) / max(north - south, 1e-6))
    height = max(LEAST_HEIGHT, (north - south) * scale + 2 * MARGIN)
    left = (WIDTH - (east - west) * narrow * scale) / 2
    top = (height - (north - south) * scale) / 2
    largest = (
        max((max(member.forecast, 0.0) for member in members if member.name in near), default=0.0) or 1.0
    )
    places = [
        Place(
            member,
            round(left + (near[member.name][0] - west) * narrow * scale, 1),
            round(top + (north - near[member.name][1]) * scale, 1),
            round(max(SMALLEST, LARGEST * math.sqrt(max(member.forecast, 0.0) / largest)), 1),
            change_class(member.change),
        )
        for member in members
        if member.name in near
    ]
    return Map(level, places, [m for m in members if m.name not in near], round(height, 1))
