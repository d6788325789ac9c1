import gzip
from datetime import date, timedelta
from io import BytesIO

import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.samples import (
    HISTORY_FILE,
    PLACEHOLDER,
    STORES_FILE,
    PlantedDefect,
    Sample,
    sample_files,
)
from turnover_assets.core.synthetic import Retailer, make_retailer
from turnover_assets.panel import default_panel

STORE, DEPARTMENT, WEEK = "but_num_business_unit", "dpt_num_department", "day_id"
KEY = [STORE, DEPARTMENT, WEEK]


@pytest.fixture(scope="module")
def retailer() -> Retailer:
    return make_retailer()


@pytest.fixture(scope="module")
def clean(retailer: Retailer) -> Sample:
    return sample_files(retailer)


@pytest.fixture(scope="module")
def spoiled(retailer: Retailer) -> Sample:
    return sample_files(retailer, defects=True)


def content(sample: Sample, name: str) -> bytes:
    (found,) = (file.content for file in sample.files if file.name == name)
    return found


def read(sample: Sample, name: str) -> pd.DataFrame:
    compression = "gzip" if name.endswith(".gz") else None
    return pd.read_csv(BytesIO(content(sample, name)), compression=compression, dtype={"but_postcode": str})


def planted(sample: Sample, kind: str) -> PlantedDefect:
    (found,) = (defect for defect in sample.defects if defect.kind == kind)
    return found


def changed_rows(sample: Sample, defect: PlantedDefect, retailer: Retailer) -> pd.DataFrame:
    """Rows of the file whose turnover is not the retailer's, with the retailer's beside it."""
    both = read(sample, defect.file).merge(retailer.turnover, on=KEY, suffixes=("", "_true"), validate="1:1")
    return both[both["turnover"] != both["turnover_true"]]


def weekly_mean_by_month(retailer: Retailer) -> pd.DataFrame:
    """Mean turnover of each month (rows) and department (columns, in the order of their kinds)."""
    month = pd.to_datetime(retailer.turnover[WEEK]).dt.month.rename("month")
    return retailer.turnover.groupby([month, DEPARTMENT])["turnover"].mean().unstack()


# The retailer


def test_the_same_seed_gives_the_same_retailer_and_the_same_bytes() -> None:
    first, second = (make_retailer(8, 2, 60, seed=3) for _ in range(2))

    pd.testing.assert_frame_equal(first.turnover, second.turnover, check_exact=True)
    pd.testing.assert_frame_equal(first.stores, second.stores, check_exact=True)
    assert sample_files(first, defects=True) == sample_files(second, defects=True)


def test_another_seed_gives_other_stores_and_other_turnover() -> None:
    first, second = make_retailer(8, 2, 60, seed=3), make_retailer(8, 2, 60, seed=4)

    assert set(first.stores["but_latitude"]).isdisjoint(second.stores["but_latitude"])
    assert first.turnover["turnover"].sum() != second.turnover["turnover"].sum()


@pytest.mark.parametrize(
    ("stores", "departments", "weeks"),
    [(1, 1, 1), (1, 4, 3), (2, 2, 60), (7, 9, 30), (40, 3, 110)],
    ids=lambda value: str(value),
)
def test_sizes_follow_the_arguments(stores: int, departments: int, weeks: int) -> None:
    retailer = make_retailer(stores, departments, weeks, last_week=date(2020, 2, 29))

    assert len(retailer.stores) == retailer.stores[STORE].nunique() == stores
    assert set(retailer.turnover[STORE]) == set(retailer.stores[STORE])
    assert retailer.turnover[DEPARTMENT].nunique() == departments
    assert retailer.turnover[WEEK].nunique() == weeks
    assert retailer.turnover[WEEK].max() == "2020-02-29"


def test_columns_are_those_of_the_default_panel(retailer: Retailer) -> None:
    tables = default_panel().tables

    assert set(retailer.turnover.columns) == set(tables["turnover"].values())
    assert set(retailer.stores.columns) == set(tables["stores"].values())


def test_weeks_begin_on_saturdays_without_a_gap_and_no_row_occurs_twice(retailer: Retailer) -> None:
    weeks = pd.to_datetime(pd.Series(sorted(retailer.turnover[WEEK].unique())))

    assert (weeks.dt.day_name() == "Saturday").all()
    assert (weeks.diff().dropna() == pd.Timedelta(days=7)).all()
    assert not retailer.turnover.duplicated(KEY).any()


def test_some_stores_open_and_some_close_while_the_others_stay(retailer: Retailer) -> None:
    lives = retailer.turnover.groupby(STORE)[WEEK].agg(["min", "max"])
    first, last = lives["min"].min(), lives["max"].max()

    opened, closed = lives["min"] > first, lives["max"] < last

    assert opened.sum() == 3
    assert closed.sum() == 2
    assert not (opened & closed).any()


def test_a_new_store_begins_below_the_level_it_grows_to() -> None:
    retailer = make_retailer(stores=200, weeks=160)
    steady = retailer.turnover[retailer.turnover[DEPARTMENT] == retailer.turnover[DEPARTMENT].max()]
    begin = steady.groupby(STORE)[WEEK].transform("min")
    age = (pd.to_datetime(steady[WEEK]) - pd.to_datetime(begin)).dt.days // 7
    new = begin > steady[WEEK].min()

    young = steady[new & (age < 4)].groupby(STORE)["turnover"].mean()
    grown = steady[new & age.between(27, 39)].groupby(STORE)["turnover"].mean()

    assert 0.3 < (young / grown).median() < 0.75


def test_one_department_is_not_carried_by_every_store(retailer: Retailer) -> None:
    carried = retailer.turnover.groupby(DEPARTMENT)[STORE].nunique()

    assert carried.tolist() == [30, 20, 30, 30]


def test_returns_leave_negative_weeks_and_quiet_weeks_are_zero_mostly_in_small_series(
    retailer: Retailer,
) -> None:
    values = retailer.turnover["turnover"]
    level = retailer.turnover.groupby([STORE, DEPARTMENT])["turnover"].transform("median")

    assert 0.001 < (values < 0).mean() < 0.03
    assert 0.005 < (values == 0).mean() < 0.08
    assert level[values <= 0].median() < 0.2 * level.median()


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_departments_peak_in_different_seasons(seed: int) -> None:
    peaks = weekly_mean_by_month(make_retailer(weeks=160, seed=seed)).idxmax()

    summer, winter, autumn, christmas = peaks.tolist()

    assert summer in (6, 7)
    assert winter in (1, 2)
    assert autumn in (8, 9)
    assert christmas == 12


def test_the_summer_peak_comes_later_in_the_north() -> None:
    retailer = make_retailer(stores=300, departments=1, weeks=209)
    rows = retailer.turnover.merge(retailer.stores, on=STORE)
    day = pd.to_datetime(rows[WEEK]).dt.dayofyear
    rows = rows.assign(day=day)[day.between(120, 250)]

    centre = rows.groupby("but_region_idr_region").apply(
        lambda region: pd.Series(
            {
                "day": np.average(region["day"], weights=region["turnover"]),
                "latitude": region["but_latitude"].mean(),
            }
        )
    )

    assert centre.corr().loc["day", "latitude"] > 0.3


def test_easter_moves_sales_with_its_date() -> None:
    retailer = make_retailer(stores=120, departments=1, weeks=180)
    total = retailer.turnover.groupby(WEEK)["turnover"].sum()
    # The two weeks up to Easter Monday, in 2022 (18 April) and 2024 (1 April).
    early, late = slice("2024-03-16", "2024-03-29"), slice("2022-04-02", "2022-04-15")
    a_year = timedelta(weeks=104)

    def beside(part: slice, shift: timedelta) -> float:
        first, last = (str(date.fromisoformat(day) + shift) for day in (part.start, part.stop))
        return float(total[first:last].mean())

    lift_in_late_march = total[early].mean() / beside(early, -a_year)
    lift_in_mid_april = beside(late, a_year) / total[late].mean()

    assert lift_in_late_march > 1.08 * lift_in_mid_april


def test_neighbouring_stores_share_a_region_and_a_region_lies_in_one_zone() -> None:
    stores = make_retailer(stores=200, departments=1, weeks=1).stores
    places = stores[["but_latitude", "but_longitude"]].to_numpy()
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    region = stores["but_region_idr_region"].to_numpy()

    same_as_neighbour = (region == region[distance.argmin(axis=1)]).mean()

    assert same_as_neighbour > 0.7
    assert len(set(region)) > 20
    assert stores.groupby("but_region_idr_region")["zod_idr_zone_dgr"].nunique().eq(1).all()
    assert stores["zod_idr_zone_dgr"].nunique() < len(set(region))


def test_what_a_series_sells_beyond_its_season_lasts_into_the_next_week() -> None:
    retailer = make_retailer(stores=60, weeks=160)
    steady = retailer.turnover[retailer.turnover[DEPARTMENT] == retailer.turnover[DEPARTMENT].max()]
    panel = np.log(steady.pivot_table(index=WEEK, columns=STORE, values="turnover").clip(lower=1)).dropna(
        axis=1
    )

    beyond = panel.sub(panel.mean(axis=1), axis=0)
    beyond -= beyond.rolling(53, center=True, min_periods=1).mean()

    assert beyond.apply(lambda series: series.autocorr(1)).median() > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stores": 0}, "stores must be at least 1, not 0"),
        ({"departments": -1}, "departments must be at least 1, not -1"),
        ({"weeks": 0}, "weeks must be at least 1, not 0"),
        ({"seed": -5}, "seed must be at least 0, not -5"),
        ({"last_week": date(2024, 6, 28)}, "last_week must be a Saturday, not Friday 2024-06-28"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_out_of_range_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_retailer(**arguments)


# Its files


def test_clean_files_together_hold_exactly_the_retailer(retailer: Retailer, clean: Sample) -> None:
    names = [file.name for file in clean.files]

    together = pd.concat([read(clean, name) for name in names if name != STORES_FILE], ignore_index=True)

    recent = [f"turnover_2024-06-{day}.csv" for day in ("08", "15", "22", "29")]
    assert names == [STORES_FILE, HISTORY_FILE, *recent]
    assert clean.defects == ()
    pd.testing.assert_frame_equal(together, retailer.turnover, check_exact=True)
    pd.testing.assert_frame_equal(read(clean, STORES_FILE), retailer.stores, check_exact=True)


def test_each_weekly_file_holds_the_week_of_its_name(clean: Sample) -> None:
    weekly = [file.name for file in clean.files if file.name.startswith("turnover_2024")]

    assert [read(clean, name)[WEEK].unique().tolist() for name in weekly] == [[name[9:19]] for name in weekly]


def test_the_history_carries_no_time_of_packing(clean: Sample) -> None:
    packed = content(clean, HISTORY_FILE)

    assert packed[4:8] == bytes(4)
    assert gzip.decompress(packed).startswith(b"day_id,but_num_business_unit,dpt_num_department,turnover\n")


def test_without_recent_weeks_everything_is_history(retailer: Retailer) -> None:
    sample = sample_files(retailer, recent_weeks=0)

    assert [file.name for file in sample.files] == [STORES_FILE, HISTORY_FILE]
    assert len(read(sample, HISTORY_FILE)) == len(retailer.turnover)


@pytest.mark.parametrize(
    ("weeks", "arguments", "message"),
    [
        (60, {"recent_weeks": -1}, "recent_weeks must be 0 to 59, not -1"),
        (60, {"recent_weeks": 60}, "recent_weeks must be 0 to 59, not 60"),
        (60, {"seed": -1}, "seed must be at least 0, not -1"),
        (60, {"recent_weeks": 0, "defects": True}, "recent_weeks must be at least 1, not 0"),
        (
            55,
            {"defects": True},
            "56 weeks are needed .recent_weeks, here 4, come on top of 52 of history., not 55",
        ),
    ],
    ids=["negative", "all weeks", "seed", "nothing recent to spoil", "short history"],
)
def test_sample_arguments_out_of_range_are_named(weeks: int, arguments: dict, message: str) -> None:
    small = make_retailer(stores=1, departments=1, weeks=weeks)

    with pytest.raises(ValueError, match=message):
        sample_files(small, **arguments)


# The defects


def test_one_defect_of_each_kind_is_planted_and_the_retailer_stays_as_it_was(retailer: Retailer) -> None:
    before = retailer.turnover.copy()

    sample = sample_files(retailer, defects=True)

    kinds = [defect.kind for defect in sample.defects]
    assert sorted(kinds) == [
        "doubled",
        "duplicate_file",
        "invalid_date",
        "placeholder",
        "restated_week",
        "unknown_store",
    ]
    pd.testing.assert_frame_equal(retailer.turnover, before, check_exact=True)


def test_the_history_differs_only_by_the_doubled_department_and_the_placeholder(
    retailer: Retailer, spoiled: Sample
) -> None:
    doubled, placeholder = planted(spoiled, "doubled"), planted(spoiled, "placeholder")

    changed = changed_rows(spoiled, doubled, retailer)
    held = changed[changed["turnover"] == PLACEHOLDER]
    twice = changed.drop(held.index)

    assert held[KEY].to_numpy().tolist() == [
        [placeholder.store, placeholder.department, str(placeholder.since)]
    ]
    assert placeholder.department != doubled.department
    assert (twice["turnover"] == doubled.factor * twice["turnover_true"]).all()
    assert set(twice[DEPARTMENT]) == {doubled.department}
    assert (twice[WEEK].min(), twice[WEEK].max()) == (str(doubled.since), str(doubled.until))
    assert twice[WEEK].nunique() == 30
    # Zeros are twice themselves, so that they do not show as changed.
    assert 0.95 * doubled.rows < len(twice) <= doubled.rows


def test_every_store_of_the_doubled_department_is_doubled(retailer: Retailer, spoiled: Sample) -> None:
    doubled = planted(spoiled, "doubled")
    history = read(spoiled, HISTORY_FILE)

    concerned = history[
        (history[DEPARTMENT] == doubled.department)
        & history[WEEK].between(str(doubled.since), str(doubled.until))
    ]
    both = concerned.merge(retailer.turnover, on=KEY)

    assert len(both) == doubled.rows
    assert (both["turnover_x"] == 2 * both["turnover_y"]).all()


def test_the_row_of_an_unknown_store_is_one_more_than_the_week_has(
    retailer: Retailer, spoiled: Sample
) -> None:
    defect = planted(spoiled, "unknown_store")
    rows = read(spoiled, defect.file)

    strange = rows[~rows[STORE].isin(retailer.stores[STORE])]

    assert strange[KEY].to_numpy().tolist() == [[defect.store, defect.department, str(defect.since)]]
    assert len(rows) == 1 + (retailer.turnover[WEEK] == str(defect.since)).sum()


def test_the_row_with_a_bad_date_is_one_more_than_the_week_has(retailer: Retailer, spoiled: Sample) -> None:
    defect = planted(spoiled, "invalid_date")
    rows = read(spoiled, defect.file)

    undated = rows[pd.to_datetime(rows[WEEK], format="%Y-%m-%d", errors="coerce").isna()]

    assert undated[KEY].to_numpy().tolist() == [[defect.store, defect.department, "2024-02-31"]]
    assert len(rows) == 1 + (retailer.turnover[WEEK] == defect.file[9:19]).sum()


def test_the_restated_week_has_the_same_keys_and_some_other_values(
    retailer: Retailer, spoiled: Sample
) -> None:
    defect = planted(spoiled, "restated_week")
    original, later = (read(spoiled, name) for name in (defect.original, defect.file))

    changed = changed_rows(spoiled, defect, retailer)

    assert defect.original < defect.file
    pd.testing.assert_frame_equal(original[KEY], later[KEY])
    assert len(changed) == defect.rows == len(later) // 10
    assert (changed["turnover"] - changed["turnover_true"] >= 0.99).all()


def test_the_duplicate_file_has_the_same_bytes(spoiled: Sample) -> None:
    defect = planted(spoiled, "duplicate_file")

    assert content(spoiled, defect.file) == content(spoiled, defect.original)
    assert defect.original != defect.file


def test_the_notes_say_what_is_planted_in_a_file(clean: Sample, spoiled: Sample) -> None:
    notes = {file.name: file.note for file in spoiled.files}
    expected = {
        "doubled": f"Department {planted(spoiled, 'doubled').department} is at double",
        "placeholder": "A placeholder of 1000000",
        "unknown_store": "does not list this store",
        "invalid_date": "a day that does not exist",
        "restated_week": f"Restates {planted(spoiled, 'restated_week').original}: 10 rows",
        "duplicate_file": f"same bytes as {planted(spoiled, 'duplicate_file').original}",
    }

    silent = [kind for kind, text in expected.items() if text not in notes[planted(spoiled, kind).file]]

    assert silent == []
    assert not any(text in file.note for file in clean.files for text in expected.values())


@pytest.mark.parametrize("seed", range(6))
def test_defects_fit_into_the_smallest_retailer_that_allows_them(seed: int) -> None:
    tiny = make_retailer(stores=1, departments=1, weeks=53, seed=seed)

    sample = sample_files(tiny, recent_weeks=1, defects=True, seed=seed)

    rows = read(sample, "turnover_2024-06-29.csv")
    restated = read(sample, "turnover_2024-06-29_restated.csv")
    doubled, placeholder = planted(sample, "doubled"), planted(sample, "placeholder")
    assert len(rows) == 3
    assert len(restated) == 1
    assert doubled.until - doubled.since == timedelta(weeks=29)
    assert not doubled.since <= placeholder.since <= doubled.until


def test_another_seed_spoils_other_rows(retailer: Retailer, spoiled: Sample) -> None:
    other = sample_files(retailer, defects=True, seed=8)

    places = [
        (planted(sample, "placeholder").store, planted(sample, "placeholder").since)
        for sample in (spoiled, other)
    ]

    assert places[0] != places[1]


def test_no_defect_reaches_the_stores_file(clean: Sample, spoiled: Sample) -> None:
    assert content(clean, STORES_FILE) == content(spoiled, STORES_FILE)
