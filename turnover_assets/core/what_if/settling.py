"""Settling newcomers in: rows for them in the tables of a question, as if they had been there all along.

What belongs here: their history, attributes and plans, as SQL. What does not: who their peers are and what
level they have (newcomers.py).
"""

from collections.abc import Sequence

import pandas as pd

from turnover_assets.core.adjustments import FACTOR_IN_FORCE
from turnover_assets.core.what_if.newcomers import Placed
from turnover_assets.core.what_if.overlay import Overlay


def settle_in(overlay: Overlay, placed: Sequence[Placed]) -> None:
    """Add newcomers to the tables, and ask for them."""
    panel, con = overlay.panel, overlay.con
    facts = [{"number": i, "new_level": one.level, "factor": one.in_force} for i, one in enumerate(placed)]
    newcomers = pd.DataFrame([{**fact, **one.keys} for fact, one in zip(facts, placed, strict=True)])
    renamed = {key: f"peer_{key}" for key in panel.keys}
    theirs = [
        one.peers[[*panel.keys, "level"]].rename(columns=renamed).assign(number=i)
        for i, one in enumerate(placed)
    ]
    con.register("newcomers", newcomers)
    con.register("newcomers_peers", pd.concat(theirs))
    _add_attributes(overlay, placed)
    _add_plans(overlay)
    _add_history(overlay)
    overlay.ask_new("newcomers")
    con.unregister("newcomers")
    con.unregister("newcomers_peers")
    scale = newcomers[[*panel.keys, "factor"]].rename(columns={"factor": FACTOR_IN_FORCE})
    overlay.in_force = pd.concat([overlay.in_force, scale], ignore_index=True)


def _add_attributes(overlay: Overlay, placed: Sequence[Placed]) -> None:
    """Rows of attributes for members that have none."""
    for table in overlay.panel.static:
        source = f"cleaned.{table.name}"
        described = overlay.con.execute(f"SELECT column_name, column_type FROM (DESCRIBE {source})")
        types = dict(described.fetchall())
        names = [*table.keys, *(column.name for column in table.columns)]
        values = [{**one.attributes, **one.keys} for one in placed]
        rows = pd.DataFrame([[row[name] for name in names] for row in values], columns=names, dtype=object)
        overlay.con.register("described", rows.drop_duplicates(list(table.keys)).astype("string"))
        listed = ", ".join(f"CAST({name} AS {types[name]}) AS {name}" for name in names)
        on = " AND ".join(f"a.{key} = r.{key}" for key in table.keys)
        overlay.put(
            table.name,
            f"SELECT {', '.join(names)} FROM {source} UNION ALL SELECT * FROM "
            f"(SELECT {listed} FROM described) AS r WHERE NOT EXISTS (FROM {source} AS a WHERE {on})",
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
