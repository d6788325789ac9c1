"""Series that there are not yet, described by those that are like them.

What belongs here: finding peers, and what a newcomer's history, attributes and plans are taken to be. What does
not: forecasting (answer.py).

The champion forecasts from history, and a newcomer has none. So it is given that of its peers: their added-up
history over their added-up level, times the level that it is expected to have. The champion then forecasts it as
if it had traded like them all along, with the attributes that it was described with. How widely its peers' levels
lie apart goes into its bounds where no level was given.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from turnover_assets.core.adjustments import FACTOR_IN_FORCE
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.what_if.overlay import ASKED, Overlay
from turnover_assets.core.what_if.question import Newcomer
from turnover_assets.errors import QuestionError
from turnover_assets.panel import Column, PanelSpec

FEWEST_PEERS = 3  # an attribute that fewer share is not asked for
QUANTILES = {"lower_80": 0.1, "upper_80": 0.9, "lower_95": 0.025, "upper_95": 0.975}


@dataclass(frozen=True)
class Placed:
    """A newcomer among its peers.

    Attributes:
        keys: Its series keys.
        peers: A row for each peer: keys, `level` (mean of a period over the newest season, adjusted),
            `factor_in_force`, and attributes.
        level: The level it is expected to have, in the scale of adjusted values.
        spread: Level of each peer over the middle one, for what the level is taken in proportion to; empty
            where the level was given.
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
    def in_force(self) -> float:
        """Reported over adjusted values, as it is for its peers."""
        return float(self.peers[FACTOR_IN_FORCE].median())


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
    found, shared = _like(panel, newcomer, peers, field)
    if newcomer.per:
        found = found[found[newcomer.per] > 0]
    if found.empty:
        raise QuestionError(
            field, "No series is like it, so there is nothing to forecast it by.", "Name peers in `like`."
        )
    missing = [key for key in panel.keys if key not in newcomer.keys]
    groups = [((), found)] if not missing else list(found.groupby(missing, sort=True))
    size = float(newcomer.attributes[newcomer.per]) if newcomer.per and newcomer.per in newcomer.attributes else 1.0
    middles = [float(_sizes(newcomer, own).median()) for _, own in groups]
    placed = []
    for (members, own), middle in zip(groups, middles, strict=True):
        keys = {**newcomer.keys, **dict(zip(missing, members, strict=True))}
        factor = float(own[FACTOR_IN_FORCE].median())
        given = newcomer.level is not None
        level = newcomer.level * middle / sum(middles) / factor if newcomer.level is not None else middle * size
        spread = () if given else tuple(_sizes(newcomer, own) / middle)
        placed.append(
            Placed(
                {key: _plain(keys[key]) for key in panel.keys},
                own,
                level,
                spread,
                shared,
                _attributes(panel, newcomer, own, field),
            )
        )
    return placed


def peers_of(overlay: Overlay) -> pd.DataFrame:
    """Series that may be peers: those published with half a season of reports, and a level above 0."""
    panel, season = overlay.panel, overlay.panel.frequency.season
    keys = ", ".join(panel.keys)
    value = f"{panel.target}_adjusted"
    overlay.con.register("scales", overlay.in_force)
    table = overlay.con.execute(
        f"SELECT m.*, l.level, coalesce(f.{FACTOR_IN_FORCE}, 1.0) AS {FACTOR_IN_FORCE} "
        f"FROM ({overlay.members_sql()}) AS m JOIN (SELECT {keys}, avg({value}) AS level, count({value}) AS n "
        f"FROM cleaned.{panel.series.name} WHERE t > $since AND t <= $last GROUP BY ALL) AS l USING ({keys}) "
        f"LEFT JOIN scales AS f USING ({keys}) WHERE l.n >= $fewest AND l.level > 0 ORDER BY ALL",
        {"since": overlay.last - season, "last": overlay.last, "fewest": season // 2},
    ).df()
    overlay.con.unregister("scales")
    return table


def settle_in(overlay: Overlay, placed: Sequence[Placed]) -> None:
    """Add newcomers to the tables, as if they had been there all along, and ask for them."""
    panel, con = overlay.panel, overlay.con
    newcomers = pd.DataFrame([{"number": i, "new_level": p.level, **p.keys} for i, p in enumerate(placed)])
    newcomers["factor"] = [p.in_force for p in placed]
    renamed = {key: f"peer_{key}" for key in panel.keys}
    peers = pd.concat(
        [p.peers[[*panel.keys, "level"]].rename(columns=renamed).assign(number=i) for i, p in enumerate(placed)]
    )
    con.register("newcomers", newcomers)
    con.register("newcomers_peers", peers)
    _add_attributes(overlay, placed)
    _add_plans(overlay)
    _add_history(overlay)
    con.execute(f"INSERT INTO {ASKED} SELECT {', '.join(panel.keys)} FROM newcomers")
    con.unregister("newcomers")
    con.unregister("newcomers_peers")
    scale = newcomers[[*panel.keys, "factor"]].rename(columns={"factor": FACTOR_IN_FORCE})
    overlay.in_force = pd.concat([overlay.in_force, scale], ignore_index=True)


def with_peers_bounds(
    panel: PanelSpec, table: pd.DataFrame, placed: Sequence[Placed], published: pd.DataFrame
) -> pd.DataFrame:
    """Forecasts of newcomers with bounds as wide as their peers' are, and wider where their level is a guess.

    Added-up history is smoother than that of any one series, so that the champion would be too sure.

    Args:
        panel: The panel.
        table: Forecasts of newcomers; see forecasting.forecast_table.
        placed: The newcomers.
        published: Forecasts of all series.
    """
    found = []
    for one in placed:
        own = table[(table[list(panel.keys)] == pd.Series(dict(one.keys))).all(axis=1)].copy()
        theirs = published.merge(one.peers[list(panel.keys)], on=list(panel.keys))
        theirs = theirs[theirs["forecast"] > 0]
        widths = theirs[list(BOUNDS)].div(theirs["forecast"], axis=0).groupby(theirs["horizon"]).median()
        for bound in BOUNDS:
            ratio = own["horizon"].map(widths[bound])
            if one.spread:
                ratio = ratio * np.quantile(one.spread, QUANTILES[bound])
            own[bound] = (own["forecast"] * ratio).fillna(own[bound])
        found.append(own)
    return pd.concat(found, ignore_index=True)


def _like(
    panel: PanelSpec, newcomer: Newcomer, peers: pd.DataFrame, field: str
) -> tuple[pd.DataFrame, str]:
    """The peers of a newcomer, and what they have in common, in words."""
    found, shared = peers, []
    for name, value in newcomer.like.items():
        found = found[found[name] == value]
        shared.append(f"{name} {value}")
    if found.empty:
        raise QuestionError(
            f"{field}.like", f"No series forecast has {', '.join(shared)}.", "Name members that there are."
        )
    for key, value in newcomer.keys.items():
        if key not in newcomer.like and (found[key] == value).any():
            found = found[found[key] == value]
            shared.append(f"{key} {value}")
    for name, value in newcomer.attributes.items() if not newcomer.like else ():
        same = found[found[name] == value]
        if name in panel.level_names and same[list(panel.keys)].drop_duplicates().shape[0] >= FEWEST_PEERS:
            found = same
            shared.append(f"{name} {value}")
    return found, ", ".join(shared) or "nothing but the panel"


def _sizes(newcomer: Newcomer, peers: pd.DataFrame) -> pd.Series:
    """The peers' levels, in proportion to what the newcomer's is taken in proportion to."""
    return peers["level"] / peers[newcomer.per] if newcomer.per else peers["level"]


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


def _attributes(
    panel: PanelSpec, newcomer: Newcomer, peers: pd.DataFrame, field: str
) -> dict[str, Any]:
    """The attributes given, and of the others what all peers have."""
    found: dict[str, Any] = {}
    for column in _attribute_columns(panel):
        values = peers[column.name].dropna().unique()
        same = len(values) == 1 and peers[column.name].notna().all()
        found[column.name] = newcomer.attributes.get(column.name, _plain(values[0]) if same else None)
        if found[column.name] is None and column.name in panel.level_names and len(values):
            raise QuestionError(
                f"{field}.attributes.{column.name}",
                "It is not given, its peers differ in it, and forecasts are added up by it.",
                f"Give it; peers have {', '.join(str(_plain(v)) for v in sorted(values)[:10])}.",
            )
    return found


def _attribute_columns(panel: PanelSpec) -> Iterator[Column]:
    for table in panel.static:
        yield from table.columns


def _add_attributes(overlay: Overlay, placed: Sequence[Placed]) -> None:
    """Rows of attributes for members that have none."""
    for table in overlay.panel.static:
        names = [*table.keys, *(column.name for column in table.columns)]
        values = [{**p.attributes, **p.keys} for p in placed]
        rows = pd.DataFrame([[row[name] for name in names] for row in values], columns=names, dtype=object)
        rows = rows.drop_duplicates(list(table.keys))
        on = " AND ".join(f"a.{key} = r.{key}" for key in table.keys)
        source = f"cleaned.{table.name}"
        types = dict(overlay.con.execute(f"SELECT column_name, column_type FROM (DESCRIBE {source})").fetchall())
        listed = ", ".join(f"CAST({name} AS {types[name]}) AS {name}" for name in names)
        overlay.con.register("described", rows.astype("string"))
        overlay.put(
            table.name,
            f"SELECT {', '.join(names)} FROM {source} UNION ALL SELECT * FROM (SELECT {listed} FROM described) AS r "
            f"WHERE NOT EXISTS (FROM {source} AS a WHERE {on})",
        )
        overlay.con.unregister("described")


def _add_plans(overlay: Overlay) -> None:
    """What is known ahead for members that nothing is known for: what is usual among their peers."""
    for table in overlay.panel.covariates:
        if not table.keys:
            continue
        names = [column.name for column in table.columns]
        usual = ", ".join(
            f"{'median' if column.type == 'number' else 'mode'}(v.{column.name}) AS {column.name}"
            for column in table.columns
        )
        new = ", ".join(f"n.{key}" for key in table.keys)
        peers = ", ".join(f"q.peer_{key}" for key in table.keys)
        pairs = f"SELECT DISTINCT {new}, {peers} FROM newcomers AS n JOIN newcomers_peers AS q USING (number)"
        on = " AND ".join(f"v.{key} = m.peer_{key}" for key in table.keys)
        known = " AND ".join(f"a.{key} = m.{key}" for key in table.keys)
        keys = ", ".join(f"m.{key}" for key in table.keys)
        overlay.put(
            table.name,
            f"SELECT {', '.join((*table.keys, 't', *names))} FROM cleaned.{table.name} UNION ALL BY NAME "
            f"SELECT {keys}, v.t, {usual} FROM ({pairs}) AS m JOIN cleaned.{table.name} AS v ON {on} "
            f"WHERE v.t > {overlay.last} AND NOT EXISTS (FROM cleaned.{table.name} AS a WHERE {known}) "
            "GROUP BY ALL",
        )


def _add_history(overlay: Overlay) -> None:
    """The history of their peers, added up, at the level that they are expected to have."""
    panel = overlay.panel
    name, target = panel.series.name, panel.target
    on = " AND ".join(f"q.peer_{key} = r.{key}" for key in panel.keys)
    keys = ", ".join(f"n.{key}" for key in panel.keys)
    overlay.put(
        name,
        f"SELECT * FROM cleaned.{name} UNION ALL BY NAME SELECT {keys}, h.{panel.time}, h.t, "
        f"h.share * n.new_level * n.factor AS {target}, h.share * n.new_level AS {target}_adjusted "
        f"FROM (SELECT q.number, r.{panel.time}, r.t, sum(r.{target}_adjusted) / sum(q.level) AS share "
        f"FROM cleaned.{name} AS r JOIN newcomers_peers AS q ON {on} WHERE r.t <= {overlay.last} "
        f"AND r.{target}_adjusted IS NOT NULL GROUP BY ALL) AS h JOIN newcomers AS n USING (number)",
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
