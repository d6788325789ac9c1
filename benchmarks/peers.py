"""Peers: other forecasters, each as a person who knows that library well would set it up.

What belongs here: a function a peer, from what is known at a cutoff to forecasts. What does not:
adjustments, outcomes and scores (peer_windows.py, accuracy.py, walmart.py), and anything of the product. The
libraries want another pandas than it does, so this file runs under a Python of its own; what goes in and out
are Parquet files (see peer_windows.write_window).

    peers.py FOLDER... [--peers NAME...] writes <peer>-<history>.parquet (unique_id, ds, forecast) and .json
    (seconds of fitting and forecasting, versions) into each folder that lacks them.

Choices that hold for all: gaps are filled by straight lines (after the last value by that value); negative
values stay; only series alive at the cutoff are forecast. statsforecast's seasonal methods need two full
years; where there are less, last year's values stand in, and below one year the method without season.
LightGBM's parameters and the handling of missing lags were chosen on three cutoffs of 2015, before those that
are reported.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SEASON = 52
GROWTH_PERIODS = 13
GROWTH_LIMITS = (0.2, 5.0)
THREADS = int(os.environ.get("PEER_THREADS", "2"))  # with other work on the machine, 1 is quicker
SEED = 20260101


@dataclass(frozen=True)
class Known:
    """What is known at a cutoff.

    Attributes:
        history: `unique_id`, `ds`, `y`; gaps are missing rows or NaN.
        alive: The `unique_id` to forecast.
        static: `unique_id` and attributes, one row a series.
        ahead: `unique_id`, `ds` and covariates up to the last period to forecast; None where there are none.
        cutoff: The last period known.
        horizon: Periods to forecast.
    """

    history: pd.DataFrame
    alive: pd.Series
    static: pd.DataFrame
    ahead: pd.DataFrame | None
    cutoff: pd.Timestamp
    horizon: int

    @property
    def frequency(self) -> str:
        """Weeks labelled by the cutoff's weekday, as pandas writes them."""
        return f"W-{self.cutoff.day_name()[:3].upper()}"

    @cached_property
    def future(self) -> pd.DatetimeIndex:
        """The periods to forecast."""
        return pd.date_range(self.cutoff, periods=self.horizon + 1, freq=self.frequency)[1:]

    @cached_property
    def wide(self) -> pd.DataFrame:
        """A row a period up to the cutoff, a column a series; NaN before its beginning and in its gaps."""
        periods = pd.date_range(self.history["ds"].min(), self.cutoff, freq=self.frequency)
        return self.history.pivot(index="ds", columns="unique_id", values="y").reindex(periods)

    def filled(self, alive_only: bool) -> pd.DataFrame:
        """The history without gaps; series that are alive go up to the cutoff, others to their last value."""
        wide = self.wide[self.alive] if alive_only else self.wide
        ended = wide.loc[:, ~wide.columns.isin(self.alive)].bfill().isna()
        wide = wide.interpolate(limit_area="inside").ffill()
        wide = wide.mask(ended.reindex(columns=wide.columns, fill_value=False))
        return _long(wide, "y").dropna().reset_index(drop=True)


Peer = Callable[[Known], pd.DataFrame]


def _long(wide: pd.DataFrame, name: str) -> pd.DataFrame:
    """Periods in rows and series in columns to `unique_id`, `ds` and a value, sorted."""
    stacked = wide.rename_axis(index="ds", columns="unique_id").T.stack(future_stack=True)
    return stacked.to_frame(name).reset_index().sort_values(["unique_id", "ds"], ignore_index=True)


def _last_year(known: Known) -> pd.DataFrame:
    """For each period to forecast (rows) and series alive (columns) the value a season before."""
    wide = known.wide[known.alive].interpolate(limit_area="inside").ffill()
    found = wide.reindex(known.future - pd.Timedelta(weeks=SEASON)).set_axis(known.future)
    return found.fillna(wide.tail(4).mean())


def seasonal_naive(known: Known) -> pd.DataFrame:
    """The value 52 weeks before; of younger series the mean of the last four."""
    return _long(_last_year(known), "forecast")


def seasonal_naive_growth(known: Known) -> pd.DataFrame:
    """The same, times the series' growth over the last quarter, from pairs that are both known."""
    wide = known.wide[known.alive]
    recent, year_ago = (wide.shift(lag).tail(GROWTH_PERIODS) for lag in (0, SEASON))
    both = recent.notna() & year_ago.notna()
    growth = recent.where(both).sum() / year_ago.where(both).sum().replace(0.0, np.nan)
    return _long(_last_year(known) * growth.clip(*GROWTH_LIMITS).fillna(1.0), "forecast")


def statistical(known: Known, method: str) -> pd.DataFrame:
    """A local model of statsforecast a series: `mstl`, `auto_theta` or `auto_ets`."""
    from statsforecast import StatsForecast
    from statsforecast.models import MSTL, AutoETS, AutoTheta, SeasonalNaive

    plain = {"mstl": AutoETS(model="ZZN"), "auto_ets": AutoETS(model="ZZN"), "auto_theta": AutoTheta()}
    full = {
        "mstl": MSTL(season_length=SEASON),
        "auto_ets": AutoETS(season_length=SEASON),
        "auto_theta": AutoTheta(season_length=SEASON),
    }
    history = known.filled(alive_only=True)
    length = history.groupby("unique_id")["y"].transform("size")
    parts = []
    for first, last, model in (
        (1, SEASON - 1, plain[method]),
        (SEASON, 2 * SEASON, SeasonalNaive(SEASON)),
        (2 * SEASON + 1, np.inf, full[method]),
    ):
        chosen = history[length.between(first, last)]
        if len(chosen):
            forecaster = StatsForecast(
                [model], known.frequency, n_jobs=THREADS, fallback_model=SeasonalNaive(SEASON)
            )
            found = forecaster.forecast(df=chosen, h=known.horizon)
            parts.append(found.set_axis(["unique_id", "ds", "forecast"], axis="columns"))
    found = pd.concat(parts, ignore_index=True)
    stand_in = found[["unique_id", "ds"]].merge(seasonal_naive(known), on=["unique_id", "ds"], how="left")
    return found.fillna({"forecast": stand_in["forecast"]})


def mlforecast_lightgbm(known: Known) -> pd.DataFrame:
    """One LightGBM for all series on lags, rolling means, calendar and attributes; recursive, its default."""
    forecaster, history, static, ahead = _mlforecast(known)
    # LightGBM reads missing lags: young series and histories are learned from too.
    forecaster.fit(history, static_features=static, dropna=False)
    return forecaster.predict(known.horizon, X_df=ahead, ids=known.alive.to_list())


def mlforecast_features(folder: Path, history: str) -> dict[str, float]:
    """What it costs to make the features alone: rows, features, peak megabytes of the process, and seconds.

    They are made twice: `first_seconds` and, where the process has its memory already, `seconds`.
    """
    known, took = read_known(folder, history), []
    for _ in range(2):
        forecaster, values, static, _ = _mlforecast(known)
        began = time.perf_counter()
        made = forecaster.preprocess(values, static_features=static, dropna=False)
        took.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024**2 if sys.platform == "darwin" else 1024
    )
    features = len(made.columns) - len(["unique_id", "ds", "y"])
    seconds = {"first_seconds": took[0], "seconds": took[1]}
    return {**seconds, "rows": len(made), "features": features, "megabytes": peak}


def mlforecast_plain(known: Known) -> pd.DataFrame:
    """The same lags, rolling means and scaling, with the defaults of LightGBM and of the library alone."""
    from lightgbm import LGBMRegressor

    model = LGBMRegressor(n_jobs=THREADS, random_state=SEED, verbosity=-1)
    forecaster = _on_lags(known, model, [])
    forecaster.fit(known.filled(alive_only=False), static_features=[])
    return forecaster.predict(known.horizon, ids=known.alive.to_list())


def _on_lags(known: Known, model: Any, date_features: list[str]) -> Any:
    """A forecaster on lags and rolling means of each series, standardised."""
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean
    from mlforecast.target_transforms import LocalStandardScaler

    return MLForecast(
        models={"forecast": model},
        freq=known.frequency,
        lags=[1, 2, 3, 4, 8, 13, 26, 51, 52, 53],
        lag_transforms={1: [RollingMean(w, min_samples=1) for w in (4, 8, 13, 26, 52)]},
        date_features=date_features,
        target_transforms=[LocalStandardScaler()],
        num_threads=THREADS,
    )


def _mlforecast(known: Known) -> tuple[Any, pd.DataFrame, list[str], pd.DataFrame | None]:
    """The forecaster, its history, the names of the attributes in it, and the covariates known ahead."""
    from lightgbm import LGBMRegressor

    model = LGBMRegressor(
        n_estimators=200,
        learning_rate=0.05,
        num_leaves=31,
        min_child_samples=50,
        subsample=0.8,
        subsample_freq=1,
        colsample_bytree=0.8,
        objective="regression_l1",
        n_jobs=THREADS,
        random_state=SEED,
        verbosity=-1,
    )
    forecaster = _on_lags(known, model, ["week", "month"])
    static = _coded(known.static)
    history = known.filled(alive_only=False).merge(static, on="unique_id")
    ahead = None
    if known.ahead is not None:
        history = history.merge(known.ahead, on=["unique_id", "ds"], how="left")
        ahead = known.ahead[known.ahead["ds"].isin(known.future) & known.ahead["unique_id"].isin(known.alive)]
    return forecaster, history, [*static.columns[1:]], ahead


def _coded(static: pd.DataFrame) -> pd.DataFrame:
    """Attributes as numbers: texts by their rank."""
    codes = {
        c: pd.factorize(static[c], sort=True)[0] for c in static.columns[1:] if static[c].dtype == object
    }
    return static.assign(**codes)


def case_study_model(known: Known) -> pd.DataFrame:
    """The case study's own: scikit-learn's gradient boosting, its defaults, on calendar and attributes alone.

    Year, and positions or other numbers as they are; week, month, and the other attributes one-hot. No lags.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.preprocessing import OneHotEncoder

    numbers = [c for c in known.static.columns if known.static[c].dtype.kind == "f"]
    groups = [c for c in known.static.columns[1:] if c not in (*numbers, "postcode")]
    rows = known.history.dropna(subset="y")
    future = pd.MultiIndex.from_product([known.alive, known.future], names=["unique_id", "ds"]).to_frame(
        index=False
    )
    both = pd.concat([rows, future]).merge(known.static, on="unique_id", how="left")
    week, year = both["ds"].dt.isocalendar().week, both["ds"].dt.year
    encoded = OneHotEncoder(dtype=np.float32).fit_transform(
        both[groups].astype(str).assign(week=week, month=both["ds"].dt.month)
    )
    plain = both[numbers].fillna(both[numbers].median()).assign(year=year).to_numpy(np.float32)
    x = hstack([csr_matrix(plain), encoded], format="csr")
    fitted = GradientBoostingRegressor(random_state=SEED).fit(x[: len(rows)], rows["y"].to_numpy())
    return future.assign(forecast=fitted.predict(x[len(rows) :]))


PEERS: dict[str, Peer] = {
    "seasonal_naive": seasonal_naive,
    "seasonal_naive_growth": seasonal_naive_growth,
    "mstl": partial(statistical, method="mstl"),
    "auto_theta": partial(statistical, method="auto_theta"),
    "auto_ets": partial(statistical, method="auto_ets"),
    "mlforecast": mlforecast_lightgbm,
    "mlforecast_plain": mlforecast_plain,
    "case_study": case_study_model,
}
LOCAL = ("seasonal_naive", "seasonal_naive_growth", "mstl", "auto_theta", "auto_ets")  # a model a series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="windows, see peer_windows.write_window")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--histories", nargs="+", default=["reported", "adjusted"])
    parser.add_argument("--features", action="store_true", help="mlforecast's features only, and their cost")
    parser.add_argument("--again", action="store_true", help="also where forecasts are kept, for their time")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # two threads on busy cores wait without spinning
    if chosen.features:
        print(json.dumps([mlforecast_features(folder, "adjusted") for folder in chosen.folders]))
        return
    for folder in chosen.folders:
        for peer in chosen.peers:
            for history in chosen.histories:
                if chosen.again or not (folder / f"{peer}-{history}.json").exists():
                    forecast(folder, peer, history)


def forecast(folder: Path, peer: str, history: str) -> None:
    """Forecast one window from one history and keep what came out.

    Local models of series that are the same in both histories are fitted once.
    """
    known = read_known(folder, history)
    other = folder / f"{peer}-reported.parquet"
    changed = changed_series(folder)
    shared = peer in LOCAL and history == "adjusted" and other.exists()
    began = time.perf_counter()
    if shared:
        again = known.alive[known.alive.isin(changed)].reset_index(drop=True)
        kept = pd.read_parquet(other)
        parts = [kept[~kept["unique_id"].isin(changed)]]
        if len(again):
            of_these = known.history[known.history["unique_id"].isin(again)]
            parts.append(PEERS[peer](replace(known, history=of_these, alive=again)))
        found = pd.concat(parts)
    else:
        found = PEERS[peer](known)
    seconds = time.perf_counter() - began
    found = found[["unique_id", "ds", "forecast"]].sort_values(["unique_id", "ds"], ignore_index=True)
    found.to_parquet(folder / f"{peer}-{history}.parquet", index=False)
    libraries = {name: version(name) for name in ("statsforecast", "mlforecast", "lightgbm", "scikit-learn")}
    facts = {"seconds": round(seconds, 2), "part": shared, "load": os.getloadavg()[0], "versions": libraries}
    (folder / f"{peer}-{history}.json").write_text(json.dumps(facts))
    print(f"{folder.name} {peer} {history}: {seconds:.1f} s", flush=True)


def changed_series(folder: Path) -> set[str]:
    """The series whose reported and adjusted values differ."""
    history = pd.read_parquet(folder / "history.parquet")
    differs = history["reported"].ne(history["adjusted"]) & history[["reported", "adjusted"]].notna().any(
        axis=1
    )
    return set(history.loc[differs, "unique_id"])


def read_known(folder: Path, history: str) -> Known:
    """What is known at a window's cutoff, with one of its two histories."""
    about = json.loads((folder / "window.json").read_text())
    values = pd.read_parquet(folder / "history.parquet").rename(columns={history: "y"})
    ahead = folder / "ahead.parquet"
    return Known(
        history=values[["unique_id", "ds", "y"]],
        alive=pd.read_parquet(folder / "alive.parquet")["unique_id"],
        static=pd.read_parquet(folder / "static.parquet"),
        ahead=pd.read_parquet(ahead) if ahead.exists() else None,
        cutoff=pd.Timestamp(about["cutoff"]),
        horizon=about["horizon"],
    )


if __name__ == "__main__":
    main()
