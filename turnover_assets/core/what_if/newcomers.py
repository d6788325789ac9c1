"""Series that there are not yet, described by those that are like them.

What belongs here: finding peers, and what a newcomer's level, bounds and attributes are taken to be. What
does not: putting it into the tables (settling.py), and forecasting (answer.py).

The champion forecasts from history, and a newcomer has none. So it is given that of its peers: their
added-up history over their added-up level, times the level that it is expected to have. The champion then
forecasts it as if it had traded like them all along, with the attributes that it was described with. How
far its peers lie apart goes into its bounds.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from turnover_assets.core.adjustments import FACTOR_IN_FORCE
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.what_if.overlay import Overlay
from turnover_assets.core.what_if.question import Newcomer
from turnover_assets.errors import QuestionError
from turnover_assets.panel import Column, PanelSpec

FEWEST_PEERS = 3  # fewer do not tell how far levels lie apart; an attribute that fewer share is passed over
MOST_MEMBERS = 10  # named in a message


@dataclass(frozen=True)
class Placed:
    """A newcomer among its peers.

    Attributes:
        keys: Its series keys.
        peers: A row for each peer: keys, `level` (mean of a period over the newest season, adjusted),
            `factor_in_force`, and attributes.
        level: The level it is expected to have, in the scale of adjusted values.
        spread: Level of each peer over the middle one, in that proportion; empty where the level was given.
        shares: What its peers have in common, in words.
        attributes: Its attributes; None where not known.
    """

    keys: Mapping[str, Any]
    peers: pd.DataFrame
    level: float
    spread: tuple[float, ...]
    shares: str
    attributes: Mapping[str, Any]

    @property
    def named(self) -> str:
        """Its keys, for people."""
        return ", ".join(f"{key} {value}" for key, value in self.keys.items())

    @property
    def in_force(self) -> float:
        """Reported over adjusted values, as it is for its peers."""
        return float(self.peers[FACTOR_IN_FORCE].median())


def peers_of(overlay: Overlay) -> pd.DataFrame:
    """Series that may be peers: those published with half a season of reports, and a level above 0."""
    panel, season = overlay.panel, overlay.panel.frequency.season
    keys, value = ", ".join(panel.keys), f"{panel.target}_adjusted"
    overlay.con.register("scales", overlay.in_force)
    table = overlay.con.execute(
        f"SELECT m.*, l.level, coalesce(f.{FACTOR_IN_FORCE}, 1.0) AS {FACTOR_IN_FORCE} FROM "
        f"({overlay.members_sql()}) AS m JOIN (SELECT {keys}, avg({value}) AS level, count({value}) AS n "
        f"FROM cleaned.{panel.series.name} WHERE t > $since AND t <= $last GROUP BY ALL) AS l "
        f"USING ({keys}) LEFT JOIN scales AS f USING ({keys}) "
        "WHERE l.n >= $fewest AND l.level > 0 ORDER BY ALL",
        {"since": overlay.last - season, "last": overlay.last, "fewest": season // 2},
    ).df()
    overlay.con.unregister("scales")
    return table


def place(overlay: Overlay, newcomer: Newcomer, peers: pd.DataFrame, field: str) -> list[Placed]:
    """A newcomer's series among their peers.

    Args:
        overlay: The tables.
        newcomer: The newcomer.
        peers: What peers_of gives.
        field: Its place in the question.

    Raises:
        QuestionError: It exists, has no peers, or lacks an attribute that it is added up by.
    """
    panel = overlay.panel
    _check_new(overlay, newcomer, field)
    found = _candidates(newcomer, peers, field)
    missing = [key for key in panel.keys if key not in newcomer.keys]
    groups: list[tuple[Any, pd.DataFrame]] = (
        list(found.groupby(missing, sort=True)) if missing else [((), found)]
    )
    nearest = [(members, *_nearest(panel, newcomer, own, missing)) for members, own in groups]
    middles = [float(_sizes(newcomer, own).median()) for _, own, _ in nearest]
    given = newcomer.attributes.get(newcomer.per) if newcomer.per else None
    size = 1.0 if given is None else float(given)
    placed = []
    for (members, own, shared), middle in zip(nearest, middles, strict=True):
        keys = {**newcomer.keys, **dict(zip(missing, members, strict=True))}
        level, spread = middle * size, tuple(_sizes(newcomer, own) / middle)
        if newcomer.level is not None:
            factor = float(own[FACTOR_IN_FORCE].median())
            level, spread = newcomer.level * middle / sum(middles) / factor, ()
        known = _attributes(panel, newcomer, own, field)
        named = {key: _plain(keys[key]) for key in panel.keys}
        placed.append(Placed(named, own, level, spread, shared, known))
    return placed


def with_peers_bounds(
    panel: PanelSpec, table: pd.DataFrame, placed: Sequence[Placed], published: pd.DataFrame
) -> pd.DataFrame:
    """Forecasts of newcomers with bounds that allow for what a newcomer adds to the errors of its peers.

    The champion alone would be too sure, since added-up history is smoother than that of any one series. So
    bounds are as far from the forecast as those of peers are, and further by how far the peers' forecasts lie
    apart; both as shares of their levels, and as independent of each other. Where the level was not given,
    they are moved apart by how far the peers' levels lie apart, too.

    Args:
        panel: The panel.
        table: Forecasts of newcomers; see forecasting.forecast_table.
        placed: The newcomers.
        published: Forecasts of all series.
    """
    found, keys = [], list(panel.keys)
    lowest = 0.0 if panel.series.target.nonnegative else -np.inf
    for one in placed:
        own = table[(table[keys] == pd.Series(dict(one.keys))).all(axis=1)].copy()
        theirs = published.merge(one.peers[[*keys, "level", FACTOR_IN_FORCE]], on=keys)
        level = theirs["level"] * theirs[FACTOR_IN_FORCE]
        shares = theirs[["forecast", *BOUNDS]].div(level, axis=0)
        apart = shares["forecast"].groupby(theirs["horizon"]).apply(_deviation)
        usual = shares.groupby(theirs["horizon"]).median()
        of_level = _deviation(pd.Series(one.spread, dtype=float).map(math.log)) if one.spread else 0.0
        for bound in BOUNDS:
            side, student = (-1 if bound.startswith("lower") else 1), _student(bound, len(one.peers))
            reach = ((usual[bound] - usual["forecast"]) ** 2 + (apart * student) ** 2) ** 0.5
            near = own["forecast"] + side * own["horizon"].map(reach) * one.level * one.in_force
            outwards = np.where(near >= 0, side, -side)
            own[bound] = np.maximum(near * np.exp(outwards * student * of_level), lowest)
        found.append(own)
    return pd.concat(found, ignore_index=True)


def _deviation(values: pd.Series) -> float:
    """Standard deviation of what one more would be; 0 where too few tell."""
    if len(values) < FEWEST_PEERS:
        return 0.0
    return float(values.std(ddof=1) * np.sqrt(1 + 1 / len(values)))


def _student(bound: str, count: int) -> float:
    """Student's quantile of a bound, for a deviation that so many tell."""
    return float(stats.t.ppf(0.5 + int(bound[-2:]) / 200, max(count - 1, 1)))


def _check_new(overlay: Overlay, newcomer: Newcomer, field: str) -> None:
    """Make sure that no series has the newcomer's keys."""
    where = " AND ".join(f"{key} = ?" for key in newcomer.keys)
    count, last = overlay.con.execute(
        f"SELECT count(*), max({overlay.panel.time}) FROM cleaned.{overlay.panel.series.name} WHERE {where}",
        list(newcomer.keys.values()),
    ).fetchall()[0]
    if count:
        named = ", ".join(f"{key} {value}" for key, value in newcomer.keys.items())
        raise QuestionError(
            f"{field}.keys",
            f"{named} has a history, up to {last}, so it is not new.",
            "Ask for it in `series`, or give a key that nothing has yet.",
        )


def _candidates(newcomer: Newcomer, peers: pd.DataFrame, field: str) -> pd.DataFrame:
    """Who may be its peers, by what the question says."""
    found = peers
    for name, value in newcomer.like.items():
        found = found[found[name] == value]
    if found.empty:
        raise QuestionError(
            f"{field}.like",
            "No series that is forecast, with half a year of reports, is like that.",
            "Name keys and attributes that some series has.",
        )
    for key, value in newcomer.keys.items():
        if key not in newcomer.like and (found[key] == value).any():
            found = found[found[key] == value]
    if newcomer.per:
        found = found[found[newcomer.per] > 0]
    if found.empty:
        raise QuestionError(
            f"{field}.per",
            f"No series that is like it has a {newcomer.per} above 0.",
            "Leave `per` out, or give the `level`.",
        )
    return found


def _nearest(
    panel: PanelSpec, newcomer: Newcomer, peers: pd.DataFrame, grouped: Sequence[str]
) -> tuple[pd.DataFrame, str]:
    """Those that share its attributes, where enough do; and what they have in common, in words."""
    found = peers
    shared = dict(newcomer.like)
    shared |= {key: peers[key].iloc[0] for key in grouped}
    shared |= {key: value for key, value in newcomer.keys.items() if (peers[key] == value).all()}
    for name in panel.level_names if not newcomer.like else ():
        same = found[found[name] == newcomer.attributes.get(name)]
        if len(same) >= FEWEST_PEERS:
            found, shared = same, {**shared, name: newcomer.attributes[name]}
    return found, ", ".join(f"{name} {value}" for name, value in shared.items()) or "nothing but the panel"


def _sizes(newcomer: Newcomer, peers: pd.DataFrame) -> pd.Series:
    """The peers' levels, in proportion to what the newcomer's is taken in proportion to."""
    return peers["level"] / peers[newcomer.per] if newcomer.per else peers["level"]


def _attributes(panel: PanelSpec, newcomer: Newcomer, peers: pd.DataFrame, field: str) -> dict[str, Any]:
    """The attributes given, and of the others what all peers have."""
    found: dict[str, Any] = {}
    for column in _attribute_columns(panel):
        values = peers[column.name].dropna().unique()
        same = len(values) == 1 and bool(peers[column.name].notna().all())
        found[column.name] = newcomer.attributes.get(column.name, _plain(values[0]) if same else None)
        if found[column.name] is None and column.name in panel.level_names and len(values):
            members = ", ".join(str(_plain(value)) for value in sorted(values)[:MOST_MEMBERS])
            raise QuestionError(
                f"{field}.attributes.{column.name}",
                "It is not given, peers differ in it, and forecasts are added up by it.",
                f"Give it; peers have {members}.",
            )
    return found


def _attribute_columns(panel: PanelSpec) -> Iterator[Column]:
    for table in panel.static:
        yield from table.columns


def _plain(value: Any) -> Any:
    """A value of a frame as Python's own; whole numbers that a missing one made fractions are whole again."""
    found = value.item() if isinstance(value, np.generic) else value
    return int(found) if isinstance(found, float) and found.is_integer() else found
