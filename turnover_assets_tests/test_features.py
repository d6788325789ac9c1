"""Features: against their definitions, and that no value after the cutoff reaches them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.core import features, histories, relations
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.row_arrays import select_rows
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets_tests import oracles
from turnover_assets_tests.factories import (
    daily,
    daily_history,
    default_history,
    insert_frames,
    memory_warehouse,
    walmart_history,
    walmart_like,
)

ALIVE = 4
Frames = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Case:
    """A panel, its history, and the oracle's view of both."""

    panel: PanelSpec
    frames: Frames
    shape: oracles.Shape
    country: str | None = None

    @property
    def sales(self) -> pd.DataFrame:
        return self.frames[self.panel.series.name]

    def period(self, text: str) -> int:
        pattern = self.panel.series.time.format or "%Y-%m-%d"
        return index_of(self.panel, datetime.strptime(text, pattern).date())

    def text(self, t: int) -> str:
        return label_of(self.panel, t).strftime(self.panel.series.time.format or "%Y-%m-%d")

    @property
    def last(self) -> int:
        return max(self.period(text) for text in self.sales[self.panel.time].unique())

    def history(self) -> oracles.History:
        keys, time = self.panel.keys, self.panel.time
        values: dict[tuple[object, ...], dict[int, float]] = {}
        for row in self.sales.to_dict("records"):
            series = values.setdefault(tuple(row[key] for key in keys), {})
            series[self.period(row[time])] = row[self.panel.target]
        members = {level: {s: self._member(level, s) for s in values} for level in self.panel.level_names}
        return oracles.History(values, members, self.panel.report_level, self.shape, self.panel.horizon)

    def _member(self, level: str, series: tuple[object, ...]) -> object:
        if level in self.panel.keys:
            return series[self.panel.keys.index(level)]
        table = next(t for t in self.panel.static if level in {c.name for c in t.columns})
        key = series[self.panel.keys.index(table.keys[0])]
        member = self.frames[table.name].set_index(table.keys[0])[level].to_dict()[key]
        return None if pd.isna(member) else member


CASES = {
    "default": Case(default_panel(), default_history(), oracles.WEEKLY, "FR"),
    "walmart-like": Case(walmart_like(), walmart_history(), oracles.WEEKLY, "US"),
    "daily": Case(daily(), daily_history(), oracles.DAILY),
}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def loaded(case: Case) -> Iterator[duckdb.DuckDBPyConnection]:
    """The case's cleaned tables. Tests only make temporary relations in it."""
    with memory_warehouse() as con:
        insert_frames(con, case.panel, case.frames)
        yield con


KEYS = ["key_store", "key_department"]


def read(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> pd.DataFrame:
    """The rows of the chosen pairs, by series keys instead of the series' number."""
    keys = ", ".join(f"s.{key} AS key_{key}" for key in panel.keys)
    order = ", ".join(f"key_{key}" for key in panel.keys)
    return con.execute(
        f"SELECT {keys}, x.* EXCLUDE series_id FROM ({features.rows_sql(panel)}) AS x "
        f"JOIN series AS s USING (series_id) ORDER BY {order}, cutoff, horizon"
    ).df()


def scoring_rows(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: int, last: int) -> pd.DataFrame:
    relations.prepare(con, panel, last)
    relations.choose_scoring_pairs(con, panel, cutoff, ALIVE)
    return read(con, panel)


def training_rows(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int, share: float = 1.0, most: int = 10**9
) -> pd.DataFrame:
    relations.prepare(con, panel, last)
    relations.choose_training_pairs(con, panel, share, most, ALIVE)
    return read(con, panel)


def series_of(row: Mapping[str, object], panel: PanelSpec) -> tuple[object, ...]:
    return tuple(row[f"key_{key}"] for key in panel.keys)


def without_outcome(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without what is only known afterwards."""
    return rows.drop(columns=["actual", "reported"]).reset_index(drop=True)


# Against the definitions


def test_features_agree_with_their_definitions(case: Case, loaded: duckdb.DuckDBPyConnection) -> None:
    history, panel, last = case.history(), case.panel, case.last
    cutoffs = [last, last - 1, last - 9, last - case.shape.season, last - 2 * case.shape.season + 3]
    checked = 0

    for cutoff in cutoffs:
        rows = scoring_rows(loaded, panel, cutoff, last).to_dict("records")
        assert rows
        for row in rows:
            if case.shape.season > 52 and row["horizon"] not in (1, 6, panel.horizon):
                continue  # the oracle is slow
            series = series_of(row, panel)
            expected = oracles.features(history, series, cutoff, row["horizon"])
            wrong = {
                name: (row[name], value)
                for name, value in expected.items()
                if not np.isclose(row[name], np.nan if value is None else value, 2e-6, 1e-7, equal_nan=True)
            }
            assert wrong == {}, (series, cutoff, row["horizon"])
            scale = oracles.scale_of(history.known(cutoff), series, cutoff)
            assert row["scale"] == np.float32(scale)
            checked += len(expected)

    assert checked > 1000


def test_rows_have_the_actual_of_their_target_period(case: Case, loaded: duckdb.DuckDBPyConnection) -> None:
    values = case.history().values

    rows = scoring_rows(loaded, case.panel, case.last - case.panel.horizon, case.last)

    assert (rows["t"] == rows["cutoff"] + rows["horizon"]).all()
    expected = [values[series_of(row, case.panel)].get(row["t"], np.nan) for row in rows.to_dict("records")]
    np.testing.assert_array_equal(rows["reported"], expected)
    np.testing.assert_array_equal(rows["actual"], expected)


@pytest.mark.parametrize(("fewest", "least"), [(1, 2), (3, 0), (1000, 0)])
def test_rows_have_the_usual_error_of_the_time_of_year(
    case: Case, loaded: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch, fewest: int, least: int
) -> None:
    monkeypatch.setattr(histories, "FEWEST_ERRORS", fewest)
    history, known, last = case.history(), 0, case.last

    for cutoff in (last, last - 20, last - case.shape.season):
        rows = scoring_rows(loaded, case.panel, cutoff, last).drop_duplicates("t")
        for row in rows[rows["horizon"].isin([1, case.panel.horizon])].to_dict("records"):
            expected = oracles.season_error(history.known(cutoff), row["t"], fewest)
            assert row["season_error"] == pytest.approx(
                np.nan if expected is None else expected, rel=1e-9, nan_ok=True
            )
            known += expected is not None

    assert known >= least
    assert known == 0 or fewest < 1000


def test_series_that_sell_nothing_say_nothing_of_the_time_of_year(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["default"]
    monkeypatch.setattr(histories, "FEWEST_ERRORS", 1)
    series, target = list(case.panel.keys), case.panel.target
    silent = case.sales[series].drop_duplicates().iloc[::2]
    number = case.sales[series].apply(tuple, axis=1).isin(silent.apply(tuple, axis=1))
    sales = case.sales.assign(**{target: case.sales[target].where(~number, 0.0)})
    quiet = replace(case, frames={**case.frames, case.panel.series.name: sales})

    with memory_warehouse() as con:
        insert_frames(con, quiet.panel, quiet.frames)
        rows = scoring_rows(con, quiet.panel, quiet.last, quiet.last).drop_duplicates("t")

    others = replace(quiet, frames={**case.frames, case.panel.series.name: sales[~number]})
    for row in rows.to_dict("records"):
        expected = oracles.season_error(others.history(), row["t"], 1)
        assert row["season_error"] == pytest.approx(expected, rel=1e-9)


def test_calendar_features_are_those_of_the_target_period(
    case: Case, loaded: duckdb.DuckDBPyConnection
) -> None:
    panel, days = case.panel, case.panel.frequency.days
    offset = timedelta(days=0 if panel.series.time.label == "start" else days - 1)

    rows = scoring_rows(loaded, panel, case.last, case.last)

    for row in rows.drop_duplicates("t").to_dict("records"):
        start = label_of(panel, row["t"]) - offset
        expected = oracles.calendar_features(start, days, case.shape.season, case.country)
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_values_known_ahead_are_those_of_the_target_period() -> None:
    case = CASES["walmart-like"]
    known = {
        (row["store"], case.period(row["week"])): (row["temperature"], float(row["is_holiday"]))
        for row in case.frames["features"].to_dict("records")
    }
    with memory_warehouse() as con:
        insert_frames(con, case.panel, case.frames)
        rows = scoring_rows(con, case.panel, case.last, case.last)

    expected = np.array([known[row.key_store, row.t] for row in rows.itertuples()], dtype=np.float32)
    np.testing.assert_array_equal(rows[["known_temperature", "known_is_holiday"]], expected)
    sizes = case.frames["stores"].set_index("store")["size"]
    np.testing.assert_array_equal(rows["attribute_size"], rows["key_store"].map(sizes).astype(np.float32))
    assert rows.groupby("key_store")["attribute_kind"].nunique().eq(1).all()
    kinds = rows.groupby("key_store")["attribute_kind"].first()
    assert kinds[1] == kinds[3] != kinds[2]


def test_the_adjusted_value_is_what_features_are_made_of() -> None:
    case = CASES["default"]
    with memory_warehouse() as con:
        insert_frames(con, case.panel, case.frames)
        con.execute(f"UPDATE cleaned.turnover SET turnover_adjusted = turnover / 2 WHERE t = {case.last}")
        rows = scoring_rows(con, case.panel, case.last, case.last)
        outcome = scoring_rows(con, case.panel, case.last - 1, case.last)
        found = con.execute(f"SELECT store, turnover FROM cleaned.turnover WHERE t = {case.last}").fetchall()

    assert found
    values = case.history().values
    for row in rows[rows["lag_0"].notna()].to_dict("records"):
        half = values[series_of(row, case.panel)][case.last] / 2
        assert row["lag_0"] * row["scale"] == pytest.approx(half, rel=1e-6, abs=1e-9)
    known = outcome[outcome["t"] == case.last].dropna(subset="actual")
    np.testing.assert_array_equal(known["actual"], known["reported"] / 2)


# The arrays


@pytest.mark.parametrize("known", [False, True], ids=["all", "known"])
@pytest.mark.parametrize("share", [0.05, 1.0])
def test_the_arrays_hold_to_the_last_bit_what_the_one_text_gives(
    case: Case, loaded: duckdb.DuckDBPyConnection, share: float, known: bool
) -> None:
    relations.prepare(loaded, case.panel, case.last)
    relations.choose_training_pairs(loaded, case.panel, share, 10**9, ALIVE)
    where = "WHERE actual IS NOT NULL" if known else ""

    rows = select_rows(loaded, case.panel, known=known)

    expected = loaded.execute(
        f"SELECT * FROM ({features.rows_sql(case.panel)}) {where} ORDER BY series_id, cutoff, horizon"
    ).df()
    identity, names = list(features.IDENTITY), features.feature_names(case.panel)
    assert len(rows) > 100
    assert rows.names == tuple(names)
    pd.testing.assert_frame_equal(rows.identity, expected[identity], check_exact=True)
    np.testing.assert_array_equal(rows.x, expected[names].to_numpy(np.float32))


def test_every_feature_of_the_product_is_made_without_asking_duckdb_pair_by_pair(
    case: Case, loaded: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    relations.prepare(loaded, case.panel, case.last)
    relations.choose_scoring_pairs(loaded, case.panel, case.last, ALIVE)
    monkeypatch.setattr(features, "mixed_sql", lambda *_: pytest.fail("DuckDB is asked"))

    assert len(select_rows(loaded, case.panel))


@pytest.mark.parametrize("known", [False, True], ids=["all", "known"])
def test_a_feature_that_is_no_arithmetic_is_made_by_duckdb(
    case: Case, loaded: duckdb.DuckDBPyConnection, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = features.features(case.panel)
    added = features.Feature("root", "sqrt(k.age + p.horizon)", "age")
    monkeypatch.setattr(features, "features", lambda _: [usual[0], added, *usual[1:]])
    relations.prepare(loaded, case.panel, case.last)
    relations.choose_scoring_pairs(loaded, case.panel, case.last - 3, ALIVE)
    where = "WHERE actual IS NOT NULL" if known else ""

    rows = select_rows(loaded, case.panel, known=known)

    expected = loaded.execute(
        f"SELECT root FROM ({features.rows_sql(case.panel)}) {where} ORDER BY series_id, cutoff, horizon"
    ).df()
    assert len(rows) > 3
    assert rows.names[1] == "root"
    np.testing.assert_array_equal(rows.x[:, 1], expected["root"])
    assert len(np.unique(rows.x[:, 1])) > 1


def test_levels_that_are_compared_by_more_than_arithmetic_are_refused(
    case: Case, loaded: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = relations.between_expressions
    changed = {"shape_1": "sqrt(t.around_1)"}
    monkeypatch.setattr(relations, "between_expressions", lambda panel: usual(panel) | changed)
    relations.prepare(loaded, case.panel, case.last)
    relations.choose_scoring_pairs(loaded, case.panel, case.last, ALIVE)

    with pytest.raises(ValueError, match=r"b_\w+\.shape_1: levels are compared by plain arithmetic only"):
        select_rows(loaded, case.panel)


def test_histories_may_be_read_a_few_at_a_time(
    case: Case, loaded: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = scoring_rows(loaded, case.panel, case.last, case.last)
    monkeypatch.setattr(histories, "CELLS", 100)
    monkeypatch.setattr(histories, "ROWS", 200)
    kind = "SELECT table_type FROM information_schema.tables WHERE table_name = 'as_of'"
    assert loaded.execute(kind).fetchall() == [("VIEW",)]

    for _ in range(2):  # in place of relations that are held in memory, and of those that are tables
        found = scoring_rows(loaded, case.panel, case.last, case.last)
        assert loaded.execute(kind).fetchall() == [("LOCAL TEMPORARY",)]
        pd.testing.assert_frame_equal(found, expected, check_exact=True)

    monkeypatch.undo()
    again = scoring_rows(loaded, case.panel, case.last, case.last)
    pd.testing.assert_frame_equal(again, expected, check_exact=True)


def test_a_series_without_rows_gives_no_arrays(loaded: duckdb.DuckDBPyConnection, case: Case) -> None:
    relations.prepare(loaded, case.panel, case.last)
    relations.choose_scoring_pairs(loaded, case.panel, case.last + 100, ALIVE)

    rows = select_rows(loaded, case.panel)

    assert rows.x.shape == (0, len(features.feature_names(case.panel)))
    assert list(rows.identity) == list(features.IDENTITY)


@pytest.mark.parametrize(
    ("sql", "alone"),
    [
        ("k.lag_0 / k.scale", "k"),
        ("c_store.growth_4", "c_store"),
        ("s.store % 16777216", "s"),
        ("calendar.month", "calendar"),
        ("CAST(v_features.temperature AS DOUBLE)", "v_features"),
        ("r.around_1_narrow * 0.5", "r"),
        ("p.cutoff - k.last_seen", ""),
        ("r.around_1_narrow / k.scale", ""),
        ("b_store.shape_1", ""),
        ("p.horizon", ""),
        ("calendar.month * s.latitude", ""),
        ("1.5", ""),
    ],
)
def test_the_one_relation_of_a_feature_is_told_by_what_it_reads(sql: str, alone: str) -> None:
    assert features.Feature("some", sql, "group").alone == alone


# Leakage


def spoiled(case: Case, cutoff: int, change: str) -> Frames:
    """The case's history, changed after a cutoff in every way that could be noticed."""
    panel, sales = case.panel, case.sales.copy()
    after = sales[panel.time].map(case.period) > cutoff
    rng = np.random.default_rng(0)
    frames = dict(case.frames)
    if change == "values":
        noise = rng.normal(-5000.0, 90_000.0, len(sales))
        sales[panel.target] = sales[panel.target].where(~after, noise.round(2))
    elif change == "rows":
        stays = ~after | (rng.random(len(sales)) < 0.3)
        stays.iloc[sales[panel.time].map(case.period).argmax()] = True
        sales = sales[stays]
    else:
        frames, sales = _with_new_series(case, cutoff, sales)
    return {**frames, panel.series.name: sales}


def _with_new_series(
    case: Case, cutoff: int, sales: pd.DataFrame
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """New members of every level that come before, between and after those there are."""
    panel, frames = case.panel, dict(case.frames)
    whole = panel.series.keys[0].type == "integer"
    names = ["-7", "4", "999"] if whole else ["aaa", "côte d'ivoire", "zzz"]
    rows = [
        {**dict.fromkeys(panel.keys, name), panel.time: case.text(t), panel.target: 1e6}
        for name in names
        for t in range(cutoff + 1, case.last + 1)
    ]
    for table in panel.static:
        new = frames[table.name].iloc[[0] * len(names)].assign(**{table.keys[0]: names})
        new = new.assign(**{c.name: names for c in table.columns if c.type != "number"})
        frames[table.name] = pd.concat([new, frames[table.name]], ignore_index=True)
    return frames, pd.concat([pd.DataFrame(rows), sales], ignore_index=True)


@pytest.mark.parametrize(("change", "back"), [("values", 1), ("values", 30), ("rows", 30), ("new series", 1)])
def test_nothing_after_the_cutoff_changes_a_feature_of_it(
    case: Case, loaded: duckdb.DuckDBPyConnection, back: int, change: str
) -> None:
    panel, cutoff = case.panel, case.last - back
    known = scoring_rows(loaded, panel, cutoff, last=cutoff)
    with memory_warehouse() as con:
        insert_frames(con, panel, spoiled(case, cutoff, change))
        last = con.execute(f"SELECT max(t) FROM cleaned.{panel.series.name}").fetchall()[0][0]
        scored = scoring_rows(con, panel, cutoff, last=cutoff)
        later = scoring_rows(con, panel, cutoff, last=last)
        trained = training_rows(con, panel, last)

    assert last > cutoff
    assert len(known)
    pd.testing.assert_frame_equal(without_outcome(scored), without_outcome(known), check_exact=True)
    pd.testing.assert_frame_equal(without_outcome(later), without_outcome(known), check_exact=True)
    trained = trained[trained["cutoff"] == cutoff]
    same = known[known["t"] <= last]
    pd.testing.assert_frame_equal(without_outcome(trained), without_outcome(same), check_exact=True)


def test_training_rows_of_every_cutoff_are_what_was_scored_there(
    case: Case, loaded: duckdb.DuckDBPyConnection
) -> None:
    trained = training_rows(loaded, case.panel, case.last)

    for cutoff in (case.last - 3, case.last - 40, case.last - case.shape.season - 5):
        scored = scoring_rows(loaded, case.panel, cutoff, last=cutoff)
        scored = scored[scored["t"] <= case.last]
        then = trained[trained["cutoff"] == cutoff]
        pd.testing.assert_frame_equal(without_outcome(then), without_outcome(scored), check_exact=True)


def test_nothing_is_known_of_the_outcome_where_the_target_lies_after_the_last_period(
    case: Case, loaded: duckdb.DuckDBPyConnection
) -> None:
    rows = scoring_rows(loaded, case.panel, case.last - 20, last=case.last - 20)

    assert rows["actual"].isna().all()
    assert rows["reported"].isna().all()


# Which rows there are


def test_every_living_series_has_a_row_for_each_horizon_and_no_other_has_any(
    case: Case, loaded: duckdb.DuckDBPyConnection
) -> None:
    horizons = list(range(1, case.panel.horizon + 1))
    for cutoff in (case.last, case.last - 22, case.last - 62):
        living = {
            series
            for series, values in case.history().values.items()
            if any(t in values for t in range(cutoff - ALIVE + 1, cutoff + 1))
        }

        rows = scoring_rows(loaded, case.panel, cutoff, case.last)

        groups = rows.groupby([f"key_{key}" for key in case.panel.keys])["horizon"].apply(list)
        found = {series if isinstance(series, tuple) else (series,) for series in groups.index}
        assert found == living
        assert all(group == horizons for group in groups)


def test_the_history_has_dead_and_young_series_and_gaps() -> None:
    history, last = CASES["default"].history().values, CASES["default"].last

    assert any(max(values) < last - 20 for values in history.values())
    assert any(min(values) > last - 30 for values in history.values())
    assert any(len(values) <= max(values) - min(values) for values in history.values())
    assert any(value < 0 for values in history.values() for value in values.values())


def test_training_rows_end_with_what_is_known(case: Case, loaded: duckdb.DuckDBPyConnection) -> None:
    rows = training_rows(loaded, case.panel, case.last - 5)

    assert rows["t"].max() == case.last - 5
    assert rows["cutoff"].max() == case.last - 6
    assert not rows.duplicated([*(f"key_{key}" for key in case.panel.keys), "cutoff", "horizon"]).any()


def test_the_share_of_cutoffs_is_used_evenly_and_four_times_it_for_the_next_period() -> None:
    case = CASES["default"]
    with memory_warehouse() as con:
        insert_frames(con, case.panel, case.frames)
        everything = training_rows(con, case.panel, case.last)
        chosen = {share: training_rows(con, case.panel, case.last, share) for share in (0.02, 0.15, 0.6)}

    for share, rows in chosen.items():
        of_horizon = rows.groupby("horizon").size() / everything.groupby("horizon").size()
        assert of_horizon[1] == pytest.approx(min(1.0, 4 * share), rel=0.2)
        assert of_horizon.drop(1).to_numpy() == pytest.approx(share, rel=0.25)
        whole = rows.loc[rows["horizon"] > 1, [*KEYS, "cutoff"]].drop_duplicates()
        assert len(whole.merge(rows.query("horizon == 1")[[*KEYS, "cutoff"]])) == len(whole)
    for rows in (chosen[0.15], chosen[0.6]):
        assert set(zip(rows["key_store"], rows["key_department"], strict=True)) == set(
            zip(everything["key_store"], everything["key_department"], strict=True)
        )
        assert rows["cutoff"].nunique() > 0.9 * everything["cutoff"].nunique()


def test_the_bound_of_training_rows_is_never_passed() -> None:
    case = CASES["default"]
    with memory_warehouse() as con:
        insert_frames(con, case.panel, case.frames)
        for most in (0, 10, 11, 100, 1000, 5000):
            rows = training_rows(con, case.panel, case.last, most=most)

            assert 0.7 * most - 11 <= len(rows) <= most


# Names


def test_names_are_those_of_the_columns_in_their_order(case: Case, loaded: duckdb.DuckDBPyConnection) -> None:
    relations.prepare(loaded, case.panel, case.last)
    relations.choose_scoring_pairs(loaded, case.panel, case.last, ALIVE)

    columns = [row[:2] for row in loaded.execute(f"DESCRIBE {features.rows_sql(case.panel)}").fetchall()]

    names = [name for name, _ in columns]
    assert names == [*features.IDENTITY, *features.feature_names(case.panel)]
    assert {kind for _, kind in columns[len(features.IDENTITY) :]} == {"FLOAT"}
    assert list(features.feature_groups(case.panel)) == features.feature_names(case.panel)


def test_without_any_history_there_are_no_rows(con: duckdb.DuckDBPyConnection) -> None:
    panel = default_panel()
    frames = {name: pd.DataFrame(columns=list(columns)) for name, columns in panel.tables.items()}
    insert_frames(con, panel, frames)

    assert scoring_rows(con, panel, cutoff=1400, last=1400).empty


def test_codes_do_not_depend_on_the_other_members() -> None:
    case = CASES["default"]
    few = {**case.frames, "turnover": case.sales[case.sales["store"] == 40]}
    found = []
    for frames in (case.frames, few):
        with memory_warehouse() as con:
            insert_frames(con, case.panel, frames)
            rows = scoring_rows(con, case.panel, case.last, case.last)
        rows = rows[rows["key_store"] == 40]
        found.append(rows[["department_code", "store_code", "region_code", "attribute_postcode"]].to_numpy())

    np.testing.assert_array_equal(found[0], found[1])


def test_rows_of_another_release_are_refused_with_what_differs() -> None:
    with pytest.raises(ValueError, match=r"missing: \['b'\], unexpected: \['c'\]"):
        features.check_row_columns(["a", "c"], ["a", "b"])


def test_rows_in_another_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"missing: \[\], unexpected: \[\]"):
        features.check_row_columns(["b", "a"], ["a", "b"])


def test_the_first_week_of_a_series_is_its_age_zero() -> None:
    case = CASES["default"]
    begin = date(2015, 1, 3)
    with memory_warehouse() as con:
        insert_frames(con, case.panel, case.frames)
        rows = scoring_rows(con, case.panel, index_of(case.panel, begin), case.last)

    assert set(rows["age"]) == {0.0}
    assert rows["lag_0"].abs().max() <= 1.0
