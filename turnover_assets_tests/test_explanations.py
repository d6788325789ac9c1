"""Explanations: effects add up to the published forecast, agree with slow computations, and can be read."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnover_assets.core import relations
from turnover_assets.core.calendar import index_of
from turnover_assets.core.explanation_words import AVERAGE, MINUS, YEAR_AGO, Wording, occasion
from turnover_assets.core.explanations import (
    effect_columns,
    effect_shares,
    explain_forecasts,
    manager_groups,
)
from turnover_assets.core.features import feature_groups
from turnover_assets.core.models import CANDIDATES, Candidate, Rows
from turnover_assets.core.models.base import Floats
from turnover_assets.core.models.naive import SeasonalNaive, SeasonalNaiveGrowth
from turnover_assets.core.row_arrays import select_rows
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets_tests.factories import (
    daily,
    daily_history,
    default_history,
    insert_frames,
    make_panel,
    memory_warehouse,
    walmart_history,
    walmart_like,
)

ALIVE = 4
IN_FORCE = 2.0  # of every second series


@dataclass(frozen=True)
class Scene:
    """What explain_forecasts is given, and rows to train on."""

    panel: PanelSpec
    training: Rows
    rows: Rows
    year_ago: Rows
    series: pd.DataFrame

    def explained(self, candidate: Candidate) -> pd.DataFrame:
        return explain_forecasts(self.panel, candidate, self.rows, self.year_ago, self.series)


def make_scene(panel: PanelSpec, frames: Mapping[str, pd.DataFrame]) -> Scene:
    with memory_warehouse() as con:
        insert_frames(con, panel, frames)
        last = int(con.execute(f"SELECT max(t) FROM cleaned.{panel.series.name}").fetchall()[0][0])
        keys = ", ".join(panel.keys)
        scale = con.execute(f"SELECT DISTINCT {keys} FROM cleaned.{panel.series.name} ORDER BY ALL").df()
        scale["factor_in_force"] = np.where(np.arange(len(scale)) % 2, IN_FORCE, 1.0)
        relations.prepare(con, panel, last, in_force=scale)
        relations.choose_training_pairs(con, panel, 1.0, 800, ALIVE)
        training = select_rows(con, panel, known=True)
        relations.choose_scoring_pairs(con, panel, last, ALIVE)
        rows = select_rows(con, panel)
        relations.choose_scoring_pairs(con, panel, last - panel.frequency.season, ALIVE)
        year_ago = select_rows(con, panel)
        series = con.execute(f"SELECT series_id, {keys}, first_t FROM series ORDER BY series_id").df()
    return Scene(panel, training, rows, year_ago, series)


SCENES: Mapping[str, Callable[[], Scene]] = {
    "default": lambda: make_scene(default_panel(), default_history()),
    "walmart-like": lambda: make_scene(walmart_like(), walmart_history()),
    "daily": lambda: make_scene(daily(), daily_history()),
}


@pytest.fixture(params=SCENES, scope="module")
def scene(request: pytest.FixtureRequest) -> Scene:
    return SCENES[request.param]()


@pytest.fixture(scope="module")
def default() -> Scene:
    return SCENES["default"]()


class Formula(Candidate):
    """A model that is any formula of the features (NaN as 0), in shares of the scale."""

    name = "formula"

    def __init__(self, formula: Callable[[Floats, Sequence[str]], Floats]) -> None:
        self.formula = formula
        self.largest = 0

    def fit(self, rows: Rows, *, seed: int, threads: int) -> Self:
        return self

    def predict(self, rows: Rows) -> Floats:
        self.largest = max(self.largest, len(rows))
        return self.formula(np.nan_to_num(rows.x.astype(np.float64)), rows.names) * rows.scale

    def importance(self, names: Sequence[str]) -> pd.Series:
        return pd.Series(dtype=float)

    def parameters(self) -> dict[str, str | int | float]:
        return {}

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Self:
        raise NotImplementedError


def slopes(count: int) -> Floats:
    return np.random.default_rng(7).normal(0.0, 0.05, count)


def linear() -> Formula:
    return Formula(lambda x, names: x @ slopes(len(names)))


def constant(value: float) -> Formula:
    return Formula(lambda x, _: np.full(len(x), value))


# --- adding up


def check_adding_up(scene: Scene, model: Candidate) -> None:
    found = scene.explained(model)

    in_order = scene.series.merge(scene.rows.identity.assign(p=model.predict(scene.rows)), on="series_id")
    in_order = in_order.sort_values([*scene.panel.keys, "horizon"])
    published = in_order["p"].clip(lower=0.0 if scene.panel.series.target.nonnegative else None)
    assert found["forecast"].tolist() == (published * in_order["in_force"]).tolist()
    added = found["reference"] + found[list(effect_columns(scene.panel).values())].sum(axis=1)
    assert added.to_numpy() == pytest.approx(found["forecast"].to_numpy(), rel=1e-9, abs=1e-6)
    assert set(in_order["in_force"]) == {1.0, IN_FORCE}


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.name)
def test_reference_and_effects_add_up_to_the_published_forecast(
    default: Scene, candidate: type[Candidate]
) -> None:
    check_adding_up(default, candidate().fit(default.training, seed=1, threads=2))


def test_effects_add_up_in_every_panel(scene: Scene) -> None:
    check_adding_up(scene, linear())


def test_where_a_forecast_stops_at_zero_the_bound_tells_by_how_much(default: Scene) -> None:
    found = default.explained(constant(-0.25))

    scale = default.rows.identity.merge(default.series, on="series_id").sort_values(
        [*default.panel.keys, "horizon"]
    )
    assert (found["forecast"] == 0.0).all()
    assert found["effect_bounds"].tolist() == pytest.approx(
        (0.25 * scale["scale"] * scale["in_force"]).tolist()
    )
    added = found["reference"] + found[list(effect_columns(default.panel).values())].sum(axis=1)
    assert added.to_numpy() == pytest.approx(0.0, abs=1e-6)


def test_a_target_that_may_be_negative_has_no_bound() -> None:
    scene = SCENES["walmart-like"]()

    found = scene.explained(constant(-0.25))

    assert (found["forecast"] < 0).all()
    assert (found["effect_bounds"] == 0.0).all()


# --- against a slow computation


def test_the_effects_of_a_linear_model_are_those_computed_row_by_row(default: Scene) -> None:
    found = default.explained(linear()).set_index([*default.panel.keys, "horizon"])

    groups, columns = manager_groups(default.panel), effect_columns(default.panel)
    names, kinds = default.rows.names, set()
    keys = default.series.set_index("series_id")
    ago = {(r.series_id, r.horizon): (r, x) for r, x in zip_rows(default.year_ago)}
    for row, x in zip_rows(default.rows):
        before = ago.get((row.series_id, row.horizon))
        series = keys.loc[row.series_id]
        if before and series["first_t"] <= row.cutoff - 103 and not np.isnan(before[0].actual):
            kind, start, reference = YEAR_AGO, before[1], before[0].actual
            at_level = reference * row.scale / before[0].scale
        else:
            own = default.rows.identity["horizon"] == row.horizon
            start = pd.DataFrame(default.rows.x[own]).median().to_numpy()
            kind, reference, at_level = AVERAGE, row.scale, row.scale
        expected = dict.fromkeys(columns.values(), 0.0)
        for i, name in enumerate(names):
            step = np.nan_to_num(float(x[i])) - np.nan_to_num(float(start[i]))
            expected[columns[groups[name]]] += slopes(len(names))[i] * step * row.scale
        at_start = float(np.nan_to_num(start.astype(float)) @ slopes(len(names))) * row.scale
        expected["effect_level"] += at_level - reference
        expected["effect_season"] += at_start - at_level
        total = reference + sum(expected.values())
        expected["effect_bounds"] = max(0.0, -total)
        told = found.loc[(*series[list(default.panel.keys)], row.horizon)]
        assert told["compared_with"] == kind
        assert told["reference"] == pytest.approx(reference * row.in_force)
        assert told[list(columns.values())].astype(float).to_dict() == pytest.approx(
            {name: value * row.in_force for name, value in expected.items()}, rel=1e-6, abs=1e-4
        )
        kinds.add(kind)
    assert kinds == {YEAR_AGO, AVERAGE}


def zip_rows(rows: Rows) -> list[tuple[Any, Floats]]:
    return list(zip(rows.identity.itertuples(), rows.x, strict=True))


def test_what_two_groups_do_together_is_shared_between_them(default: Scene) -> None:
    def product(x: Floats, names: Sequence[str]) -> Floats:
        return x[:, names.index("mean_4")] * x[:, names.index("growth_13")]

    found = default.explained(Formula(product))

    rows, columns = {}, [default.rows.names.index(name) for name in ("mean_4", "growth_13")]
    for row, x in zip_rows(default.year_ago):
        rows[row.series_id, row.horizon] = np.nan_to_num(x[columns].astype(float))
    merged = default.rows.identity.merge(default.series, on="series_id")
    by_key = found.set_index([*default.panel.keys, "horizon"])
    compared = 0
    ours: list[Any] = list(merged.itertuples())
    for row, x in zip(ours, default.rows.x, strict=True):
        told = by_key.loc[(row.store, row.department, row.horizon)]
        if told["compared_with"] == YEAR_AGO:
            (a0, b0), (a1, b1) = rows[row.series_id, row.horizon], np.nan_to_num(x[columns].astype(float))
            of_a = (a1 - a0) * (b0 + b1) / 2  # the Shapley value of two players
            assert told["effect_recent_level"] == pytest.approx(of_a * row.scale * row.in_force, abs=1e-4)
            compared += 1
    assert compared > 0


def test_the_reasons_of_a_baseline_are_what_it_does(default: Scene) -> None:
    found = default.explained(SeasonalNaiveGrowth())

    ours = found[found["compared_with"] == YEAR_AGO]
    silent = ["effect_calendar", "effect_store", "effect_department", "effect_region", "effect_growth"]
    assert len(ours) > 0
    assert (ours[silent] == 0.0).all(axis=None)


# --- what is compared with what


def test_the_reference_is_what_the_series_had_a_year_ago_in_the_scale_in_force(default: Scene) -> None:
    found = default.explained(SeasonalNaive()).query("compared_with == @YEAR_AGO")

    frame = default_history()["turnover"]
    had = {(r.store, r.department, r.week): r.turnover for r in frame.itertuples()}
    doubled = set(default.rows.identity.query("in_force == 2")["series_id"])
    numbers = default.series.set_index(["store", "department"])["series_id"]
    for row in found.itertuples():
        ago = had[
            row.store, row.department, (pd.Timestamp(row.week) - pd.Timedelta(weeks=52)).date().isoformat()
        ]
        factor = IN_FORCE if numbers[row.store, row.department] in doubled else 1.0
        assert row.reported_year_ago == pytest.approx(ago)
        assert row.reference == pytest.approx(factor * ago)
    repeated = found["reference"].clip(lower=0.0).to_numpy()
    assert found["forecast"].to_numpy() == pytest.approx(repeated, rel=1e-5, abs=1e-3)


def test_without_rows_of_a_year_ago_forecasts_are_compared_with_their_average(default: Scene) -> None:
    none = default.year_ago.where(np.zeros(len(default.year_ago), dtype=bool))

    found = explain_forecasts(default.panel, linear(), default.rows, none, default.series)

    scale = default.rows.identity.merge(default.series, on="series_id").sort_values(
        ["store", "department", "horizon"]
    )
    assert set(found["compared_with"]) == {AVERAGE}
    assert found["reported_year_ago"].isna().all()
    assert found["reference"].tolist() == pytest.approx((scale["scale"] * scale["in_force"]).tolist())


def test_a_history_of_less_than_a_year_can_be_explained() -> None:
    frames = default_history()
    recent = sorted(frames["turnover"]["week"].unique())[-40:]
    turnover = frames["turnover"][frames["turnover"]["week"].isin(recent)]
    scene = make_scene(default_panel(), frames | {"turnover": turnover})

    found = scene.explained(linear())

    assert len(scene.year_ago) == 0
    assert len(found) == len(scene.rows) > 0
    assert set(found["compared_with"]) == {AVERAGE}
    assert found["sentence"].str.contains("its average week of the last 12 months").all()


def test_the_order_of_rows_does_not_matter(default: Scene) -> None:
    dice = np.random.default_rng(3)

    def shuffled(rows: Rows) -> Rows:
        order = dice.permutation(len(rows))
        return Rows(rows.identity.iloc[order].reset_index(drop=True), rows.x[order], rows.names)

    other = replace(default, rows=shuffled(default.rows), year_ago=shuffled(default.year_ago))

    pd.testing.assert_frame_equal(other.explained(linear()), default.explained(linear()))


def test_explaining_changes_nothing_it_is_given(default: Scene) -> None:
    before = [(rows.identity.copy(deep=True), rows.x.copy()) for rows in (default.rows, default.year_ago)]
    series = default.series.copy(deep=True)

    default.explained(linear())

    for rows, (identity, x) in zip((default.rows, default.year_ago), before, strict=True):
        pd.testing.assert_frame_equal(rows.identity, identity)
        assert np.array_equal(rows.x, x, equal_nan=True)
    pd.testing.assert_frame_equal(default.series, series)


# --- groups


def test_every_feature_is_told_in_a_group_and_levels_have_one_each(scene: Scene) -> None:
    groups = manager_groups(scene.panel)

    assert groups.keys() == feature_groups(scene.panel).keys()
    assert set(groups.values()) <= effect_columns(scene.panel).keys()
    assert set(scene.panel.level_names) <= set(groups.values())
    for level in scene.panel.level_names:
        assert {
            groups[name] for name, group in feature_groups(scene.panel).items() if level in group.split()
        } == {level}


def test_the_shares_of_groups_are_those_of_their_absolute_effects(default: Scene) -> None:
    found = default.explained(linear())

    shares = effect_shares(default.panel, found)

    columns = effect_columns(default.panel)
    whole = sum(abs(value) for column in columns.values() for value in found[column])
    assert shares.sum() == pytest.approx(1.0)
    assert shares.is_monotonic_decreasing
    for group, column in columns.items():
        assert shares[group] == pytest.approx(sum(abs(v) for v in found[column]) / whole)


# --- words

EFFECTS = ("level", "season", "recent level", "growth", "calendar", "store", "weather", "other", "bounds")
COLUMNS = {group: f"effect_{group.replace(' ', '_')}" for group in EFFECTS}
WEEK = date(2017, 4, 15)


def wording(unit: str = "") -> Wording:
    return Wording("week", unit, "week", COLUMNS, ("store",), {WEEK: "Easter Monday falls in this week"})


def row(
    reference: float, compared: str = YEAR_AGO, reported: float | None = None, **effects: float
) -> dict[str, Any]:
    told = dict.fromkeys(COLUMNS.values(), 0.0) | {f"effect_{name}": value for name, value in effects.items()}
    facts = {
        "week": WEEK,
        "compared_with": compared,
        "reference": reference,
        "reported_year_ago": reference if reported is None else reported,
        "forecast": reference + sum(told.values()),
    }
    return facts | told


@pytest.mark.parametrize(
    ("given_row", "expected"),
    [
        (
            row(11400.0, level=570.0, season=-300.0, recent_level=620.0, other=-10.0),
            "12,300 expected, 8 % above the same week last year (11,400): recent weeks raise it (+600); the "
            "last 12 months were 5 % above the 12 before (+600); last year's week was high for the season "
            "(-300).",
        ),
        (  # 8,300 over 7,580 would be 9 %
            row(7578.0, recent_level=726.0),
            "8,300 expected, 10 % above the same week last year (7,580): recent weeks raise it (+730); the "
            "rest (-10).",
        ),
        (
            row(200.0, calendar=-12.0, store=9.0),
            "197 expected, 2 % below the same week last year (200): Easter Monday falls in this week (-12); "
            "the trend of its store raises it (+9).",
        ),
        (
            row(100.0, AVERAGE, season=120.0, store=-5.0, calendar=30.0),
            "245 expected, 2.5 times its average week of the last 12 months (100): the season raises it "
            "(+120); the calendar raises it (+30); its store lowers it (-5).",
        ),
        (
            row(100.0, level=20.0, season=-20.0),
            "100 expected, about as much as the same week last year (100).",
        ),
        (
            row(40.0, season=-70.0, bounds=30.0),
            "0 expected, 40.0 below the same week last year (40.0): last year's week was high for the season "
            "(-70.0); it cannot fall below 0 (+30.0).",
        ),
        (
            row(-4.0, growth=9.0, weather=-1.5),
            "3.50 expected, 7.50 above the same week last year (-4.00): recent growth raises it (+9.00); "
            "weather lowers it (-1.50).",
        ),
        (
            row(-200.0, level=-24.0, season=80.0),
            "-144 expected, 56 above the same week last year (-200): last year's week was low for the season "
            "(+80); amounts of the last 12 months were 12 % larger than in the 12 before (-24).",
        ),
        (
            row(-200.0, level=-300.0),
            "-500 expected, 300 below the same week last year (-200): amounts of the last 12 months were 2.5 "
            "times as large as in the 12 before (-300).",
        ),
        (
            row(0.0, growth=500.0),
            "500 expected, 500 above the same week last year (0): recent growth raises it (+500).",
        ),
        (row(0.0), "0 expected, as much as the same week last year (0)."),
        (
            row(100.0, reported=205.0, growth=10.0),
            "110 expected, 10 % above the same week last year (100): recent growth raises it (+10). Last "
            "year's week was reported as 205; it is compared after adjustment.",
        ),
    ],
    ids=[
        "larger",
        "not of rounded amounts",
        "holiday",
        "average",
        "the same",
        "bound",
        "negative",
        "refunds",
        "more refunds",
        "from nothing",
        "nothing",
        "adjusted",
    ],
)
def test_a_forecast_in_words(given_row: dict[str, Any], expected: str) -> None:
    assert wording().sentence(given_row) == expected.replace("-", MINUS)


def test_the_unit_of_the_target_is_named_once() -> None:
    assert (
        wording("EUR")
        .sentence(row(10.0, growth=1.0))
        .startswith("11.0 EUR expected, 10 % above the same week")
    )


def test_no_sentence_of_a_retailer_with_refunds_contradicts_its_amounts() -> None:
    frames = walmart_history(periods=120)
    sales = frames["sales"]
    number, week = np.divmod(np.arange(len(sales)), 120)  # every second series is of refunds, all grow
    amount = sales["amount"].abs() * np.where(number % 2, 1.0, -1.0) * np.where(week < 68, 1.0, 1.4)
    scene = make_scene(walmart_like(), {**frames, "sales": sales.assign(amount=amount)})
    found = scene.explained(SeasonalNaiveGrowth())

    below = found[(found["reference"] < 0) & (found["compared_with"] == YEAR_AGO)]

    grown = r"% (larger|smaller) than in the 12 before \(([+\N{MINUS SIGN}])"
    told = [pair for sentence in found["sentence"] for pair in re.findall(grown, sentence)]
    assert len(below) > 5
    assert not below["sentence"].str.contains("(?:above|below|times) the 12 before").any()
    assert not found["sentence"].str.contains("expected, (?:above|below)").any()
    assert set(told) <= {("larger", MINUS), ("smaller", "+")}
    assert told


amounts = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 2))


@settings(max_examples=300)
@given(
    reference=st.floats(0.01, 1e6),
    effects=st.fixed_dictionaries({name.removeprefix("effect_"): amounts for name in COLUMNS.values()}),
    compared=st.sampled_from([YEAR_AGO, AVERAGE]),
)
def test_the_amounts_of_a_sentence_add_up_as_they_stand(
    reference: float, effects: dict[str, float], compared: str
) -> None:
    given_row = row(reference, compared, **effects)

    sentence = wording().sentence(given_row)

    def amount(text: str) -> float:
        return float(text.replace(",", "").replace(MINUS, "-"))

    told = [amount(text) for text in re.findall(r"\(([+\N{MINUS SIGN}\d][\d,.]*)\)", sentence)]
    expected = amount(sentence.split(" ")[0])
    largest = max(abs(value) for value in (given_row["forecast"], reference, *effects.values()))
    assert told[0] == pytest.approx(reference, abs=0.005 * largest)
    assert expected == pytest.approx(given_row["forecast"], abs=0.005 * largest)
    assert sum(told) == pytest.approx(expected, abs=1e-6 * largest) or len(told) == 1
    assert len(told) <= 6


@pytest.mark.parametrize(
    ("panel", "week", "expected"),
    [
        (default_panel(), date(2017, 4, 15), "Easter Monday falls in this week, unlike last year"),
        (default_panel(), date(2016, 6, 18), ""),
        (default_panel(), date(2017, 5, 6), "last year Ascension Day fell in the week before"),
        (default_panel(), date(2017, 4, 22), "Easter Monday falls in the week before, unlike last year"),
        (make_panel(), date(2017, 4, 17), ""),
        (
            make_panel(frequency={"every": "day"}, holidays={"country": "US"}),
            date(2017, 7, 5),
            "Independence Day falls on the day before, unlike last year",
        ),
    ],
    ids=["moved", "as ever", "moved away", "beside", "no calendar", "daily"],
)
def test_holidays_that_a_year_ago_fell_elsewhere_are_named(
    panel: PanelSpec, week: date, expected: str
) -> None:
    assert occasion(panel, index_of(panel, week)) == expected


def test_every_forecast_has_a_sentence_in_the_terms_of_the_panel(scene: Scene) -> None:
    found = scene.explained(linear())

    every = scene.panel.frequency.every
    assert (
        found["sentence"]
        .str.contains(f"same {every} last year|average {every} of the last", regex=True)
        .all()
    )
    assert found["sentence"].str.endswith(".").all()
    assert found["sentence"].str.len().max() < 500
