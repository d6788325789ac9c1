"""Windows: what is known at a past cutoff, and what was reported afterwards, for benchmarks against peers.

What belongs here: landing a case's files, deciding on adjustments as of each cutoff, and writing what is
known then as Parquet files that any library can read; having the peers forecast from them. What does not:
the peers themselves (peers.py), scores and tables (accuracy.py, walmart.py).

A window is a folder named by its cutoff and a digest of what is in it, so forecasts kept beside it never
outlive a change of the adjustments. Nothing reported after the cutoff is in that folder: outcomes stay in
memory and are joined to the forecasts afterwards.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from turnover_assets.core.adjustments import FACTOR_IN_FORCE, adjust, in_force
from turnover_assets.core.calendar import index_of, label_sql
from turnover_assets.core.ledger import Ledger
from turnover_assets.core.repairs import Repairs
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import clean_all, land_path

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TURNOVER_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
HISTORIES = ("reported", "adjusted")


@dataclass(frozen=True)
class Window:
    """One past cutoff.

    Attributes:
        label: The date of the last period known, as in the files.
        folder: What is known, see write_window.
        outcomes: A row for each series alive at the cutoff and each horizon: `unique_id`, series keys, `ds`
            (Timestamp), `horizon` (1..H), `in_force` (reported over adjusted values at the cutoff), `actual`
            (what was reported; NaN where nothing was).
    """

    label: str
    folder: Path
    outcomes: pd.DataFrame


def open_case(panel: PanelSpec, files: Sequence[Path], settings: Settings) -> Warehouse:
    """A warehouse with the files landed and cleaned."""
    settings.home.mkdir(parents=True, exist_ok=True)
    warehouse = Warehouse(settings.warehouse_path, settings.threads, settings.memory_limit)
    for file in files:
        land_path(warehouse, panel, file)
    with warehouse.transaction() as con:
        clean_all(con, panel)
    return warehouse


def windows(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    settings: Settings,
    cutoffs: Sequence[pd.Timestamp],
    cache: Path,
) -> Iterator[Window]:
    """What is known at each cutoff, in their order; written below `cache` where it is not there yet."""
    repairs = Repairs(Ledger(), settings.adjustment_strength, settings.alive_periods)
    for cutoff in cutoffs:
        t = index_of(panel, cutoff.date())
        decided = repairs.as_of(con, panel, t)
        adjust(con, panel, decided, t)
        con.register("scale_in_force", in_force(con, panel, decided, t))
        _choose_alive(con, panel, t, settings.alive_periods)
        label = cutoff.date().isoformat()
        folder = write_window(cache, label, panel.horizon, _known(con, panel, t))
        yield Window(label, folder, _outcomes(con, panel, t))
        con.unregister("scale_in_force")


def id_sql(panel: PanelSpec, alias: str) -> str:
    """SQL for a series' name as the peers know it: its keys joined by a dash."""
    return f"concat_ws('-', {', '.join(f'{alias}.{key}' for key in panel.keys)})"


def _choose_alive(con: duckdb.DuckDBPyConnection, panel: PanelSpec, t: int, alive: int) -> None:
    """The table `alive`: the series with a value in the last periods, by which the product forecasts too."""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE alive AS SELECT {', '.join(panel.keys)} FROM adjusted "
        f"WHERE {panel.target}_adjusted IS NOT NULL AND t > {t - alive} AND t <= {t} GROUP BY ALL"
    )


def _known(con: duckdb.DuckDBPyConnection, panel: PanelSpec, t: int) -> dict[str, pd.DataFrame]:
    """The frames of a window; see write_window."""
    target, time = panel.target, f"CAST({label_sql(panel, 'a.t')} AS TIMESTAMP) AS ds"
    history = con.execute(
        f"SELECT {id_sql(panel, 'a')} AS unique_id, {time}, a.{target} AS reported, "
        f"a.{target}_adjusted AS adjusted FROM adjusted AS a WHERE a.t <= {t} ORDER BY 1, 2"
    ).df()
    alive = con.execute(f"SELECT {id_sql(panel, 's')} AS unique_id FROM alive AS s ORDER BY 1").df()
    series = f"(SELECT DISTINCT {', '.join(panel.keys)} FROM adjusted)"
    joins = " ".join(
        f"LEFT JOIN cleaned.{table.name} USING ({', '.join(table.keys)})" for table in panel.static
    )
    columns = [*panel.keys, *(column.name for table in panel.static for column in table.columns)]
    static = con.execute(
        f"SELECT {id_sql(panel, 's')} AS unique_id, {', '.join(columns)} "
        f"FROM {series} AS s {joins} ORDER BY 1"
    ).df()
    frames = {"history": history, "alive": alive, "static": static}
    for table in panel.covariates:
        values = [f"CAST(a.{c.name} AS DOUBLE) AS {c.name}" for c in table.columns if c.type != "text"]
        on = " AND ".join(f"s.{key} = a.{key}" for key in table.keys) or "true"
        frames["ahead"] = con.execute(
            f"SELECT {id_sql(panel, 's')} AS unique_id, {time}, {', '.join(values)} FROM {series} AS s "
            f"JOIN cleaned.{table.name} AS a ON {on} WHERE a.t <= {t + panel.horizon} ORDER BY 1, 2"
        ).df()
    return frames


def _outcomes(con: duckdb.DuckDBPyConnection, panel: PanelSpec, t: int) -> pd.DataFrame:
    keys = ", ".join(f"s.{key}" for key in panel.keys)
    same = " AND ".join(f"r.{key} = s.{key}" for key in panel.keys)
    found = con.execute(
        f"SELECT {id_sql(panel, 's')} AS unique_id, {keys}, "
        f"CAST({label_sql(panel, 's.t')} AS TIMESTAMP) AS ds, s.t - {t} AS horizon, "
        f"CASE WHEN f.{FACTOR_IN_FORCE} > 0 THEN f.{FACTOR_IN_FORCE} ELSE 1.0 END "
        f"AS in_force, r.{panel.target} AS actual "
        f"FROM (SELECT *, unnest(range({t + 1}, {t + 1 + panel.horizon})) AS t FROM alive) AS s "
        f"LEFT JOIN scale_in_force AS f USING ({', '.join(panel.keys)}) "
        f"LEFT JOIN cleaned.{panel.series.name} AS r ON r.t = s.t AND {same} ORDER BY 1, horizon"
    ).df()
    return found.astype({"horizon": "int64"})


def write_window(cache: Path, label: str, horizon: int, frames: dict[str, pd.DataFrame]) -> Path:
    """Write what is known at a cutoff, unless it stands there already.

    `window.json` holds `cutoff` and `horizon`; `history.parquet` `unique_id, ds, reported, adjusted`;
    `alive.parquet` the `unique_id` to forecast; `static.parquet` a row of attributes a series;
    `ahead.parquet`, where the panel has any, the covariates of `unique_id, ds` up to the last one.
    """
    digest = hashlib.sha256(f"{label} {horizon}".encode())
    for name, frame in sorted(frames.items()):
        digest.update(name.encode() + pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    folder = cache / f"{label}-{digest.hexdigest()[:8]}"
    if not (folder / "window.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in frames.items():
            frame.to_parquet(folder / f"{name}.parquet", index=False)
        (folder / "window.json").write_text(json.dumps({"cutoff": label, "horizon": horizon}))
    return folder


def run_peers(
    python: Path, found: Sequence[Window], peers: Sequence[str], history: str, again: bool = False
) -> None:
    """Have peers forecast every window from one history, in a process of their own Python.

    Args:
        python: The interpreter of an environment with the peers' libraries.
        found: The windows.
        peers: Names of the peers.
        history: One of HISTORIES; local models of the adjusted one take over what the reported one gave them.
        again: Also what is kept from an earlier run, for its time.
    """
    script, flags = Path(__file__).with_name("peers.py"), ["--again"] if again else []
    folders = [str(window.folder) for window in found]
    if peers:
        command = [str(python), str(script), *folders, *flags, "--histories", history, "--peers", *peers]
        subprocess.run(command, check=True)


def peer_forecasts(window: Window, peer: str, history: str) -> tuple[pd.Series, float]:
    """A peer's forecasts of the window's outcomes in the scale of reported values, and what it took.

    Returns:
        Forecasts in the order of the outcomes, as the peer gave them; the seconds of fitting and forecasting.

    Raises:
        ValueError: The peer left out some of the rows.
    """
    path = window.folder / f"{peer}-{history}.parquet"
    kept = pd.read_parquet(path).astype({"ds": window.outcomes["ds"].dtype})
    joined = window.outcomes.merge(kept, on=["unique_id", "ds"], how="left", validate="one_to_one")
    if joined["forecast"].isna().any():
        raise ValueError(f"{path} lacks {int(joined['forecast'].isna().sum())} of the rows to score")
    scale = joined["in_force"] if history == "adjusted" else 1.0
    return joined["forecast"] * scale, json.loads(path.with_suffix(".json").read_text())["seconds"]


def markdown(table: pd.DataFrame) -> str:
    """A table with its index as the first column; numbers with one digit."""
    lines = [["", *map(str, table.columns)], ["---"] * (len(table.columns) + 1)]
    for name, row in table.iterrows():
        lines.append([str(name), *(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
