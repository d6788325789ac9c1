"""Published snapshots of small panels with a fitted model, made in memory, for what-if questions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core import intervals
from turnover_assets.core.adjustments import write_adjustments
from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.calendar import label_of
from turnover_assets.core.conformal import Calibration
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.features import feature_names
from turnover_assets.core.forecasting import forecast_table
from turnover_assets.core.golden import golden_rows
from turnover_assets.core.models import Candidate, Rows
from turnover_assets.core.models.boosting import XGBoost
from turnover_assets.core.rows import RowLimits, fill_scoring, fill_training, read_rows, series_sql
from turnover_assets.core.seen import ranges_sql
from turnover_assets.defs.forecasts import given_queries
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.bench import Bench
from turnover_assets.serving.champion import Champion
from turnover_assets.storage import snapshots
from turnover_assets.storage.published_model import PublishedModel
from turnover_assets.storage.registry import TrainedModel
from turnover_assets.storage.snapshots import Snapshot
from turnover_assets_tests.api_factories import publish
from turnover_assets_tests.factories import insert_frames

Frames = Mapping[str, pd.DataFrame]
LIMITS = RowLimits(share=0.3, max_rows=20_000, alive=4)
ROUNDS = 12


@dataclass(frozen=True)
class Published:
    """A published panel.

    Attributes:
        panel: The panel.
        frames: What it was made from, in canonical columns.
        snapshot: The snapshot.
        champion: Its model, as a server loads it.
        bench: Its tables, as a server asks them.
    """

    panel: PanelSpec
    frames: Frames
    snapshot: Snapshot
    champion: Champion
    bench: Bench

    def forecast_of(self, frames: Frames) -> pd.DataFrame:
        """What the pipeline would forecast, had other frames landed: everything is made anew."""
        return self.champion.forecast(*self._scoring_of(frames))

    def sums_of(self, frames: Frames) -> pd.DataFrame:
        """The sums that the pipeline would forecast, had other frames landed."""
        rows, series = self._scoring_of(frames)
        return self.champion.aggregate(self.champion.forecast(rows, series), rows, series)

    def _scoring_of(self, frames: Frames) -> tuple[Rows, pd.DataFrame]:
        with duckdb.connect(config={"threads": 2}) as con:
            prepare(con, self.panel, frames)
            return scoring(con, self.panel)

    @property
    def forecasts(self) -> pd.DataFrame:
        return self.snapshot.read("forecasts")


def prepare(con: duckdb.DuckDBPyConnection, panel: PanelSpec, frames: Frames) -> None:
    """Cleaned tables and scoring rows."""
    for schema in ("raw", "cleaned", "features"):
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    insert_frames(con, panel, frames)
    write_adjustments(con, panel, [])
    fill_scoring(con, panel, LIMITS)


def scoring(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> tuple[Rows, pd.DataFrame]:
    return read_rows(con, panel, "scoring"), con.execute(series_sql(panel)).df()


def fitted(rows: Rows) -> Candidate:
    """A small forest, which uses most of what it is given."""
    return XGBoost(
        {"rounds": ROUNDS, "min_child_weight": 1.0, "subsample": 1.0, "colsample_bytree": 1.0}
    ).fit(rows, seed=1, threads=1)


def publish_panel(
    folder: Path, panel: PanelSpec, frames: Frames, fit: Callable[[Rows], Candidate] = fitted
) -> Published:
    """Everything from frames to a published snapshot."""
    with duckdb.connect(config={"threads": 2}) as con:
        prepare(con, panel, frames)
        fill_training(con, panel, LIMITS)
        training, (rows, series) = read_rows(con, panel, "training"), scoring(con, panel)
        model = trained(panel, fit(training), training)
        table = forecast_table(panel, model.candidate, model.intervals, rows, series).assign(model_version=1)
        con.register("forecast_frame", table)
        files = folder / "registered"
        files.mkdir(parents=True)
        model.save(files)
        name, keys = panel.series.name, ", ".join(panel.keys)
        queries = {
            "forecasts": "SELECT * FROM forecast_frame",
            name: f"SELECT {keys}, {panel.time}, {panel.target}, {panel.target}_adjusted, adjustment_id "
            f"FROM cleaned.{name}",
            "adjustments": "SELECT * FROM cleaned.adjustments",
            "feature_ranges": ranges_sql(panel),
            **given_queries(panel),
        }
        facts = {
            "panel": panel.name,
            "cutoff": str(label_of(panel, last_period(con, panel))),
            "data_version": "a" * 16,
            "model": {"version": 1, "candidate": model.candidate.name},
        }
        golden = golden_rows(panel, rows, series, table)
        snapshot = snapshots.publish(con, folder / "published", queries, facts, PublishedModel(files, golden))
    return Published(panel, frames, snapshot, Champion.load(snapshot, panel), Bench(snapshot, panel))


def trained(panel: PanelSpec, candidate: Candidate, rows: Rows) -> TrainedModel:
    """A fitted candidate with intervals from its own errors."""
    predicted = candidate.predict(rows)
    errors = rows.identity.assign(forecast=predicted, actual=rows.actual)
    quantiles = np.quantile(np.abs(errors["actual"] - errors["forecast"]) / errors["scale"], [0.8, 0.95])
    bounds = [-quantiles[0], quantiles[0], -quantiles[1], quantiles[1]]
    table = pd.DataFrame([bounds], columns=list(intervals.BOUNDS), index=pd.Index([1], name="horizon"))
    versions = {"panel": panel.digest, "cutoff": "", "code_version": "0"}
    sums = {level: Calibration(table / 2) for level in (*panel.level_names, TOTAL)}
    bounded = intervals.Intervals(table, aggregates=sums)
    return TrainedModel(candidate, bounded, tuple(feature_names(panel)), versions)


def history_of(published: Published) -> pd.DataFrame:
    """The history of forecasts of one cutoff: a challenger's, 10 % higher, and a baseline's without bounds.

    The challenger has not forecast the last series.
    """
    own = published.forecasts.assign(role="champion")
    keys = own[list(published.panel.keys)]
    is_last = (keys == keys.iloc[-1]).all(axis=1)
    figures = own[["forecast", *intervals.BOUNDS]]
    higher = (figures * 1.1).to_dict("series")
    theirs = own.assign(role="challenger", model_version=2, **higher)[~is_last]
    naive = own.assign(role="baseline", model_version=0, **dict.fromkeys(intervals.BOUNDS, np.nan))
    table = pd.concat([own, theirs, naive], ignore_index=True)
    return table.assign(made_at=pd.Timestamp("2030-01-01", tz="UTC"))


def serve_panel(home: Path, published: Published, version: int = 1) -> Snapshot:
    """Publish the same in a home, with a history of forecasts, as if a version had made it."""
    model = {**published.snapshot.facts["model"], "version": version}
    facts = {**published.snapshot.facts, "model": model}
    changed = {
        "forecasts": published.forecasts.assign(model_version=version),
        "forecast_history": history_of(published),
    }
    return publish(home / "published", Snapshot(published.snapshot.folder, facts), changed)
