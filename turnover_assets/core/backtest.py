"""The backtest: models judged by rolling origin, each window with what was known before it.

What belongs here: fitting entrants window by window, learning blends and intervals from the windows before,
and the rows that come of it. What does not: making windows (windows.py), the metrics (accuracy.py), and the
decision that is taken on them (gate.py).

Invariants:
    - a model sees a window's training rows only, and what it combines or calibrates on was known by then;
    - all entrants are scored on the same rows, against what was reported.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from turnover_assets.core.aggregates import aggregate
from turnover_assets.core.calendar import label_of
from turnover_assets.core.closures import limited
from turnover_assets.core.intervals import BOUNDS, HELPERS, Intervals, comparable
from turnover_assets.core.level_changes import since_training
from turnover_assets.core.metrics import bias, wape
from turnover_assets.core.models import Candidate, Rows
from turnover_assets.core.models.base import Floats
from turnover_assets.core.models.blend import Blend
from turnover_assets.core.side_by_side import side_by_side
from turnover_assets.core.windows import Window
from turnover_assets.panel import PanelSpec

MINIMUM_ROWS = 200  # below that, trees have nothing to learn from and only the baselines compete
Bools = npt.NDArray[np.bool_]
Progress = Callable[[str], None]


def compared_cutoffs(cutoffs: tuple[int, ...]) -> tuple[int, ...]:
    """The cutoffs, of a backtest's, on which models are compared: those with evidence before, if any."""
    return cutoffs[min(2, len(cutoffs) // 2) :]


@dataclass(frozen=True)
class Entrant:
    """One that takes part in a backtest.

    Attributes:
        name: Its name in the rows.
        make: Makes the unfitted candidate.
        like: An entrant before it of the same recipe, whose forecasts it shares; empty where there is none.
        fitted: A model that was fitted before: it forecasts the windows from `fitted_until` on as it is, and
            only earlier ones are forecast by a new fit of the same recipe.
        fitted_until: Index of the last period that the fitted one has seen.
    """

    name: str
    make: Callable[[], Candidate]
    like: str = ""
    fitted: Candidate | None = None
    fitted_until: int = 0


@dataclass(frozen=True)
class WindowForecasts:
    """One window, forecast by everybody.

    Attributes:
        cutoff: The cutoff at which models were fitted.
        seasons: Of history up to it.
        rows: What was forecast, with the features of HELPERS; later cutoffs are those of a model in use.
        members: For each row the keys and levels of its series, and the scales of its naive errors.
        factors: See windows.Window.
        forecasts: By entrant: in the scale of adjusted values, units of the target, shape (n,).
        seconds: By entrant: to fit and forecast.
        training_rows: How many rows there were to learn from.
    """

    cutoff: int
    seasons: float
    rows: Rows
    members: pd.DataFrame
    factors: pd.DataFrame
    forecasts: dict[str, Floats]
    seconds: dict[str, float]
    training_rows: int

    @property
    def own(self) -> Bools:
        """Whether a row is of the window's own cutoff, shape (n,)."""
        found: Bools = (self.rows.identity["cutoff"] == self.cutoff).to_numpy()
        return found

    @property
    def reported(self) -> Floats:
        """What was reported, units of the target, NaN where not known, shape (n,)."""
        return self.rows.identity["reported"].to_numpy(np.float64)

    def errors(self, name: str, until: int | None = None) -> pd.DataFrame:
        """Rows to calibrate on, those without a report among them; see Intervals.calibrate.

        Args:
            name: The entrant.
            until: Last target period whose outcome counts as known; all that are known where left out.
        """
        identity = self.rows.identity
        known = (identity["t"] <= (identity["t"].max() if until is None else until)).to_numpy()
        table = identity[["series_id", "cutoff", "t", "horizon"]].assign(
            scale=self.rows.scale * self.rows.in_force,
            forecast=self.forecasts[name] * self.rows.in_force,
            actual=self.reported,
            in_force=self.rows.in_force,
            season_error=self.rows.season_error,
            **{feature: self.rows.column(feature) for feature in HELPERS if feature in self.rows.names},
        )
        return pd.concat([table, self.members], axis=1)[known]


@dataclass(frozen=True)
class Hindsight:
    """What is known of past windows at some moment.

    Attributes:
        keys: Names of the series keys.
        factors: Which values were reported in another scale; see windows.Window.factors.
        until: Last target period whose outcome is known; None where all count that were reported.
    """

    keys: tuple[str, ...]
    factors: pd.DataFrame
    until: int | None = None

    def comparable(self, table: pd.DataFrame) -> pd.Series:
        """Whether outcomes were reported in the scale that forecasts went by; see intervals.comparable."""
        return comparable(table, self.factors, self.keys)

    def counts(self, window: WindowForecasts) -> Bools:
        """Whether a row has a known outcome that says something about forecasts, shape (n,)."""
        identity = window.rows.identity
        known = ~np.isnan(window.reported)
        if self.until is not None:
            known &= (identity["t"] <= self.until).to_numpy()
        facts = identity[["t", "in_force"]].assign(actual=window.reported)
        table = pd.concat([window.members[list(self.keys)], facts], axis=1)
        found: Bools = known & self.comparable(table).to_numpy()
        return found


@dataclass(frozen=True)
class Backtest:
    """What came of a backtest.

    Attributes:
        panel: The panel.
        windows: Every window, oldest first, forecast by every entrant that could take part.
        factors: As windows.Window.factors, as known now.
    """

    panel: PanelSpec
    windows: tuple[WindowForecasts, ...]
    factors: pd.DataFrame
    _calibrated: dict[tuple[str, int | None], Intervals | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def cutoffs(self) -> tuple[int, ...]:
        """Cutoffs of the windows, oldest first."""
        return tuple(window.cutoff for window in self.windows)

    @property
    def compared(self) -> tuple[int, ...]:
        """Cutoffs of the windows on which models are compared; see compared_cutoffs."""
        return compared_cutoffs(self.cutoffs)

    @property
    def seasons(self) -> float:
        """Seasons of history up to the newest outcome."""
        newest = self.windows[-1]
        until = int(newest.rows.identity["t"][~np.isnan(newest.reported)].max())
        return newest.seasons + (until - newest.cutoff) / self.panel.frequency.season

    @property
    def entrants(self) -> list[str]:
        """Names of the entrants that forecast every window."""
        return [n for n in self.windows[-1].forecasts if all(n in w.forecasts for w in self.windows)]

    def intervals(self, name: str, until: int | None = None) -> Intervals | None:
        """Intervals of an entrant from what was known at period `until`; None where nothing was.

        Without `until` everything counts. They are calibrated once.
        """
        if (name, until) not in self._calibrated:
            self._calibrated[name, until] = self._calibrate(name, until)
        return self._calibrated[name, until]

    def _calibrate(self, name: str, until: int | None) -> Intervals | None:
        errors = [w.errors(name, until) for w in self.windows if until is None or w.cutoff < until]
        table = pd.concat(errors, ignore_index=True) if errors else pd.DataFrame()
        if table.empty:
            return None
        table["comparable"] = self.hindsight(until).comparable(table)
        known = table["actual"].notna().any()
        return Intervals.calibrate(table, self.panel.level_names) if known else None

    def hindsight(self, until: int | None = None) -> Hindsight:
        """What was known at the cutoff of a window, or is known now."""
        factors = next((w.factors for w in self.windows if w.cutoff == until), self.factors)
        return Hindsight(self.panel.keys, factors, until)

    def rows(self, name: str, cutoffs: Iterable[int], *, bounded: bool = True) -> pd.DataFrame:
        """Forecasts of an entrant for the windows' own cutoffs, with bounds from the windows before.

        Args:
            name: The entrant.
            cutoffs: Cutoffs of the windows.
            bounded: Whether to make bounds, which takes a calibration for each window.

        Returns:
            A row for each series and horizon of each window: keys and levels, `cutoff`, `t`, `horizon`,
            `scale`, `actual` (reported; NaN where not known), `forecast`, bounds (NaN where no window lies
            before, and where not `bounded`), `naive_mae` and `naive_mse`, all in the scale in which the
            series is reported, units of the target, `is_new` (younger than a season at the cutoff),
            and `model`.
        """
        found = [self._rows(name, window, bounded=bounded) for window in self._at(cutoffs)]
        return pd.concat(found, ignore_index=True).drop(columns="season_error").assign(model=name)

    def _at(self, cutoffs: Iterable[int]) -> list[WindowForecasts]:
        wanted = set(cutoffs)
        return [window for window in self.windows if window.cutoff in wanted]

    def _rows(self, name: str, window: WindowForecasts, *, bounded: bool) -> pd.DataFrame:
        rows, in_force = window.rows.where(window.own), window.rows.in_force[window.own]
        forecast = window.forecasts[name][window.own]
        table = rows.identity[["series_id", "cutoff", "t", "horizon"]].assign(
            scale=rows.scale * in_force,
            actual=rows.identity["reported"].to_numpy(np.float64),
            forecast=forecast * in_force,
            season_error=rows.season_error,
        )
        intervals = self.intervals(name, window.cutoff) if bounded else None
        bounds: pd.DataFrame | float = np.nan
        if intervals is not None:
            nonnegative = self.panel.series.target.nonnegative
            bounds = intervals.bounds(rows, forecast, nonnegative=nonnegative).mul(in_force, axis=0)
            bounds.loc[rows.closed] = 0.0
        table[list(BOUNDS)] = bounds
        members = window.members[window.own].reset_index(drop=True)
        members["naive_mae"] *= np.abs(in_force)
        members["naive_mse"] *= in_force**2
        table["is_new"] = members["first_t"] > window.cutoff - self.panel.frequency.season
        return pd.concat([members.drop(columns="first_t"), table], axis=1)

    def aggregates(self, name: str, cutoffs: Iterable[int]) -> pd.DataFrame:
        """Sums of an entrant's forecasts over each level and in total, with bounds of their own."""
        found = []
        for window in self._at(cutoffs):
            table = aggregate(self._rows(name, window, bounded=False), self.panel.level_names)
            table[list(BOUNDS)] = np.nan
            intervals = self.intervals(name, window.cutoff)
            if intervals is not None:
                nonnegative = self.panel.series.target.nonnegative
                table = intervals.aggregate_bounds(table, nonnegative=nonnegative)
            found.append(table.drop(columns="season_error"))
        return pd.concat(found, ignore_index=True).assign(model=name)

    def scores(self) -> pd.DataFrame:
        """A row for each entrant, best first, over the compared windows.

        The best has the lowest WAPE. Where nobody's is below 100 %, which forecasting nothing has, series
        sell too rarely for it to tell who is good: then the best is off the least in total.

        Returns:
            `model`, `wape`, `bias` (shares), `windows`, `training_rows` (of the newest window),
            `scored_rows`, `fit_seconds` (median of the windows), `chosen`.
        """
        compared = [w for w in self.windows if w.cutoff in self.compared]
        table = pd.DataFrame([_score(name, compared) for name in self.entrants])
        table = table.sort_values("wape", kind="stable")
        if table["wape"].min() >= 1.0:
            table = table.sort_values("bias", key=abs, kind="stable")
        table = table.reset_index(drop=True)
        table["chosen"] = table.index == 0
        return table


def _score(name: str, windows: Sequence[WindowForecasts]) -> dict[str, object]:
    actual = np.concatenate([w.reported[w.own] for w in windows])
    forecast = np.concatenate([(w.forecasts[name] * w.rows.in_force)[w.own] for w in windows])
    return {
        "model": name,
        "wape": wape(actual, forecast),
        "bias": bias(actual, forecast),
        "windows": len(windows),
        "training_rows": windows[-1].training_rows,
        "scored_rows": int((~np.isnan(actual)).sum()),
        "fit_seconds": float(np.median([w.seconds[name] for w in windows])),
    }


def run_backtest(
    panel: PanelSpec,
    windows: Iterable[Window],
    entrants: Sequence[Entrant],
    *,
    seed: int,
    threads: int,
    factors: pd.DataFrame | None = None,
    progress: Progress = lambda _: None,
) -> Backtest:
    """Forecast every window with every entrant.

    Args:
        panel: The panel.
        windows: Windows, oldest first; each is let go of once it is forecast.
        entrants: Who takes part; blends stand after their components.
        seed: Seed of what draws.
        threads: Threads for fitting; with several, as many entrants are fitted at once.
        factors: See Backtest; those of the last window where left out.
        progress: Told what is under way, maybe from other threads.

    Raises:
        ValueError: A window's training rows reach beyond its cutoff, it has no known outcome, or there is too
            little to fit anybody.
    """
    done: list[WindowForecasts] = []
    for window in windows:
        check_separation(window)
        members = _members(window)
        forecasts, seconds = _forecast_window(
            panel, entrants, window, done, seed=seed, threads=threads, progress=progress
        )
        if not forecasts:
            raise ValueError(f"nobody can be fitted on {len(window.training)} rows; let a baseline take part")
        done.append(
            WindowForecasts(
                window.cutoff,
                _seasons(panel, window),
                window.scoring.with_features(HELPERS),
                members,
                window.factors,
                forecasts,
                seconds,
                len(window.training),
            )
        )
        del window  # or two of them would stand in memory while the next one is made
    return Backtest(panel, tuple(done), done[-1].factors if factors is None else factors)


def check_separation(window: Window) -> None:
    """The leakage guard of the backtest.

    Raises:
        ValueError: A training row's target period lies after the cutoff, or nothing can be scored.
    """
    if window.scoring.identity["reported"].isna().all():
        raise ValueError(f"the window of cutoff {window.cutoff} has no row with a known outcome")
    if len(window.training) and int(window.training.identity["t"].max()) > window.cutoff:
        raise ValueError(f"training rows reach beyond the cutoff {window.cutoff}")


def _forecast_window(
    panel: PanelSpec,
    entrants: Sequence[Entrant],
    window: Window,
    done: Sequence[WindowForecasts],
    *,
    seed: int,
    threads: int,
    progress: Progress,
) -> tuple[dict[str, Floats], dict[str, float]]:
    """Forecasts of the entrants that can take part in a window, and their seconds, in the given order."""
    hindsight = Hindsight(panel.keys, window.factors, window.cutoff)
    forecasts: dict[str, Floats] = {}

    def forecast(entrant: Entrant, threads: int) -> tuple[Floats | None, float]:
        progress(f"{entrant.name} as of {label_of(panel, window.cutoff)}")
        began = time.perf_counter()
        found = _forecast(panel, entrant, window, forecasts, done, hindsight, seed=seed, threads=threads)
        if found is not None:
            found = limited(panel, window.scoring, found)
        return found, time.perf_counter() - began

    before = done[-1].seconds if done else {}  # by which the longest come first; the quick ones stand first
    alone = [entrant for entrant in reversed(entrants) if not _needs_others(entrant)]
    alone.sort(key=lambda entrant: -before.get(entrant.name, 0.0))
    found = side_by_side([partial(forecast, entrant) for entrant in alone], threads)
    results = dict(zip((entrant.name for entrant in alone), found, strict=True))
    seconds = {}
    for entrant in entrants:
        predicted, took = results.get(entrant.name) or forecast(entrant, threads)
        if predicted is not None:
            forecasts[entrant.name], seconds[entrant.name] = predicted, took
    return forecasts, seconds


def _needs_others(entrant: Entrant) -> bool:
    """Whether its forecasts may be made of those of entrants before it."""
    return bool(entrant.like) or (entrant.fitted is None and isinstance(entrant.make(), Blend))


def _forecast(
    panel: PanelSpec,
    entrant: Entrant,
    window: Window,
    forecasts: Mapping[str, Floats],
    done: Sequence[WindowForecasts],
    hindsight: Hindsight,
    *,
    seed: int,
    threads: int,
) -> Floats | None:
    """An entrant's forecasts for a window's scoring rows; None where it cannot take part."""
    if entrant.fitted is not None and entrant.fitted_until <= window.cutoff:
        return _in_use(panel, entrant.fitted, entrant.fitted_until, window)
    if entrant.like:
        return forecasts.get(entrant.like)
    candidate = entrant.make()
    if isinstance(candidate, Blend) and entrant.fitted is None:
        if not set(candidate.components) <= forecasts.keys():
            return None
        return learn(candidate, done, hindsight, _seasons(panel, window)).combine(forecasts)
    if len(window.training) < MINIMUM_ROWS and candidate.parameters():
        return None
    if isinstance(candidate, Blend):  # a champion's, whose components are not those that take part
        candidate = learn(candidate, done, hindsight, _seasons(panel, window))
    return candidate.fit(window.training, seed=seed, threads=threads).predict(window.scoring)


def _in_use(panel: PanelSpec, fitted: Candidate, until: int, window: Window) -> Floats:
    """Forecasts of a model in use: with what it has missed since its training carried on."""
    predicted = fitted.predict(window.scoring)
    if window.recent is None or window.usual is None:
        return predicted
    changes = since_training(panel, fitted, until, window.recent, window.series, window.usual)
    found: Floats = predicted * changes.of_rows(window.scoring, window.series)
    return found


def _seasons(panel: PanelSpec, window: Window) -> float:
    """Seasons of history up to a window's cutoff."""
    return float(window.cutoff - window.series["first_t"].min() + 1) / panel.frequency.season


def learn(blend: Blend, windows: Iterable[WindowForecasts], hindsight: Hindsight, seasons: float) -> Blend:
    """A blend with weights learned on the windows' own cutoffs, from outcomes that say something by now.

    Args:
        blend: The blend.
        windows: Past ones.
        hindsight: What is known of them.
        seasons: Of history that the blend is to be fitted on.
    """
    parts = []
    for window in windows:
        known = window.own & hindsight.counts(window)
        chosen = {
            name: window.forecasts[name][known] for name in blend.components if name in window.forecasts
        }
        if known.any() and len(chosen) == len(blend.components):
            parts.append((chosen, window.rows.where(known)))
    return blend.learned(parts, seasons)


def _members(window: Window) -> pd.DataFrame:
    """The facts of each scoring row's series, in the order of the rows."""
    series = window.series.set_index("series_id").loc[window.scoring.identity["series_id"]]
    return series.reset_index(drop=True)
