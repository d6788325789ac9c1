"""The monitoring page: in figures what was put in; safe, small, and whole where nothing is known yet."""

import re
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from matplotlib.layout_engine import ConstrainedLayoutEngine

from turnover_assets.core.adjustments import ADJUSTMENTS
from turnover_assets.core.adjustments import COLUMNS as ADJUSTMENT_COLUMNS
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.features import feature_names
from turnover_assets.core.monitoring import tables
from turnover_assets.core.monitoring_page import drift, index_page, monitoring_page, outcomes
from turnover_assets.core.monitoring_page.headline import GOOD, LOOK, PLAIN, UNKNOWN, Fact, headline
from turnover_assets.core.rows import RowLimits, fill_scoring
from turnover_assets.definitions import build_definitions
from turnover_assets.defs import common
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets.settings import load_settings
from turnover_assets.storage.pages import dated, write_page
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.factories import (
    Landed,
    RawFile,
    clean_all,
    daily,
    daily_history,
    default_history,
    insert_frames,
    insert_raw,
    keep_warehouse,
    memory_warehouse,
)
from turnover_assets_tests.html_pages import EVIL, Page
from turnover_assets_tests.monitoring_factories import (
    fill_monitoring,
    insert,
    keep_published,
    made,
    newest,
)

PANEL = default_panel()
DEPARTMENTS = ["73", "88", "117"]
LAST = index_of(PANEL, date(2017, 5, 20))  # of the default history
SECTIONS = [
    "Regression performance",
    "Forecast stability",
    "Data drift",
    "Target drift",
    "Data quality",
    "Runs",
]
ALERT = {
    "severity": "critical",
    "rule": "accuracy",
    "since": date(2017, 1, 7),
    "sentence": "WAPE of department 88 was above 0.3 for three weeks.",
    "advice": "Look at its stores.",
}


def fill_features(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in ADJUSTMENT_COLUMNS.items())
    con.execute(f"CREATE OR REPLACE TABLE {ADJUSTMENTS} ({columns})")
    fill_scoring(con, panel, RowLimits(0.1, 10_000, 4))


@pytest.fixture(scope="module", autouse=True)
def _pictures_are_not_arranged() -> Iterator[None]:
    """Making room for labels is half the work of a picture."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ConstrainedLayoutEngine, "execute", lambda *_: None)
        yield


def fill(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    insert_frames(con, PANEL, default_history())
    last = newest(con, PANEL)
    fill_features(con, PANEL)
    keep_published(con, PANEL, range(last - 9, last + 1))
    fill_monitoring(con, PANEL, range(last - 9, last + 1), DEPARTMENTS)
    return con


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse in which everything is known."""
    with memory_warehouse() as con:
        return keep_warehouse(fill(con), tmp_path_factory.mktemp("known") / "known.duckdb")


@pytest.fixture
def known(kept: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A copy of it."""
    with memory_warehouse(kept) as con:
        yield con


@pytest.fixture(scope="module")
def whole(kept: Path) -> Page:
    """The page of such a warehouse, with an open alert."""
    with memory_warehouse(kept) as con:
        return page_of(con, alerts=[ALERT])


def page_of(con: duckdb.DuckDBPyConnection, panel: PanelSpec = PANEL, **others: Any) -> Page:
    return Page(monitoring_page(con, panel, made(panel, newest(con, panel)), **others))


# What it says ------------------------------------------------------------------------------------


def test_the_page_says_how_published_forecasts_turned_out(whole: Page) -> None:
    page = whole

    assert [text for tag, text in page.texts if tag == "h2"] == ["Alerts", *SECTIONS]
    cutoff = label_of(PANEL, LAST)
    assert f"Monitoring: retail-case-study, {cutoff}" in page.text
    assert "xgboost version 3" in page.text
    assert "the backtest had promised 22.5 %" in page.text
    assert "All in all forecasts were 2.1 % too high." in page.text
    assert "81.0 % of outcomes fell within the 80 % bounds, 94.0 % within the 95 % bounds." in page.text
    assert "1 of 12 series that were expected in the newest week are missing." in page.text
    assert "Forecasts of the same weeks moved by" in page.text
    assert "Forecasts of the same weeks" in page.text


def test_errors_by_horizon_and_series_are_those_of_the_outcomes(known: duckdb.DuckDBPyConnection) -> None:
    """The published forecasts are 10 % too high by construction, the naive ones 20 % too low."""
    last = newest(known, PANEL)

    rows = outcomes.prepare(known, PANEL, last)
    horizons, worst = outcomes.by_horizon(known), outcomes.worst_series(known)

    expected = known.execute(
        "SELECT count(*) FROM reports.forecast_history AS h JOIN cleaned.turnover AS s "
        "USING (store, department, week) WHERE h.role = 'champion' AND s.t > ? - 8",
        [last],
    ).fetchall()[0][0]
    assert rows == expected > 0
    assert horizons["horizon"].tolist() == list(range(1, 9))
    assert np.allclose(horizons["wape"], 0.1)
    assert np.allclose(horizons["wape_seasonal_naive"], 0.2)
    assert all(row["wape"] == pytest.approx(0.1) for row in worst)
    shares = [row["of_error"] for row in worst]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0)


def test_outcomes_fall_into_the_zones_that_their_bounds_say(known: duckdb.DuckDBPyConnection) -> None:
    outcomes.prepare(known, PANEL, newest(known, PANEL))
    known.execute(f"UPDATE {outcomes.OUTCOMES} SET lower_95 = 1, lower_80 = 2, upper_80 = 4, upper_95 = 5")
    known.execute(f"UPDATE {outcomes.OUTCOMES} SET actual = [0.5, 1, 2, 4, 5, 6][rowid % 6 + 1]")
    counts = dict(known.execute(f"SELECT actual, count(*) FROM {outcomes.OUTCOMES} GROUP BY ALL").fetchall())
    rows = sum(counts.values())

    found = outcomes.zones(known)

    assert found is not None
    expected = [counts[0.5], counts[1.0], counts[2.0] + counts[4.0], counts[5.0], counts[6.0]]
    assert np.allclose(found["share"], np.array(expected) / rows)
    assert found["share"].sum() == pytest.approx(1.0)
    assert found["expected"].sum() == pytest.approx(1.0)


def test_a_naive_forecast_that_is_not_known_hides_no_other(known: duckdb.DuckDBPyConnection) -> None:
    outcomes.prepare(known, PANEL, newest(known, PANEL))
    known.execute(f"UPDATE {outcomes.OUTCOMES} SET naive = NULL WHERE horizon = 1 AND store = 2")

    found = outcomes.by_horizon(known)

    assert np.isnan(found["wape_seasonal_naive"][0])
    assert found["wape"].notna().all()


def test_features_that_drifted_most_come_first_in_plain_words(whole: Page) -> None:
    text = whole.text

    drifted = text[text.index("What the model is given now") :]
    assert f"2 of {len(feature_names(PANEL))} features drifted." in drifted
    first = drifted.index("newest week 0.400 yes")
    assert first < drifted.index("1 week before the newest 0.200 yes")
    assert first < drifted.index("2 weeks before the newest 0.133 no")
    assert "The features that differ most" in drifted


def test_a_feature_that_hardly_varies_is_drawn_with_all_of_its_rows(con: duckdb.DuckDBPyConnection) -> None:
    fill(con)
    name = feature_names(PANEL)[0]
    for table, value in (("scoring", "1.0"), ("year_ago", "1.0 + 1e-15")):
        con.execute(f"UPDATE features.{table} SET {name} = {value}")
    con.execute(
        f"UPDATE features.scoring SET {name} = 1e12 WHERE rowid = (SELECT min(rowid) FROM features.scoring)"
    )

    drawn = drift._distribution(con, name, "in words")

    assert drawn is not None
    assert sum(drawn.current) == pytest.approx(1.0)
    assert sum(drawn.reference) == pytest.approx(1.0)


def test_histograms_are_left_out_where_the_rows_are_those_of_another_cutoff(
    known: duckdb.DuckDBPyConnection,
) -> None:
    known.execute("UPDATE features.scoring SET cutoff = cutoff - 1")

    assert "The features that differ most" not in page_of(known).text


def test_members_come_with_the_least_accurate_first(whole: Page) -> None:
    text = whole.text
    members = text[text.index("By department") : text.index("The series that add most")]

    assert re.findall(r"(?<= )(73|88|117) 2\d\.0 %", members) == ["117", "88", "73"]


def test_open_alerts_are_told_and_unknown_ones_are_not_mentioned(
    whole: Page, con: duckdb.DuckDBPyConnection
) -> None:
    clean_all(con, PANEL)
    none_open, unknown = (Page(monitoring_page(con, PANEL, made(PANEL, LAST), a)) for a in ([], None))

    assert "critical accuracy 2017-01-07 WAPE of department 88 was above 0.3 for three weeks." in whole.text
    assert "Look at its stores." in whole.text
    assert "No alert is open." in none_open.text
    assert [text for tag, text in none_open.texts if tag == "h2"] == ["Alerts", *SECTIONS]
    assert "lert" not in unknown.text


def test_missing_series_and_runs_are_listed(whole: Page) -> None:
    text = whole.text

    cutoff = label_of(PANEL, LAST)
    assert re.search(rf"1 series store department last reported \d+ \d+ {cutoff}", text)
    assert "refresh SUCCESS 69 2 1 a new file run 9" in text
    assert "forecasts/latest 12.5 320 4,096 SUCCESS" in text


# Where little is known ---------------------------------------------------------------------------


def test_the_first_page_says_what_is_not_known_yet(con: duckdb.DuckDBPyConnection) -> None:
    insert_frames(con, PANEL, default_history())
    last = newest(con, PANEL)
    keep_published(con, PANEL, [last])

    page = page_of(con)

    assert [text for tag, text in page.texts if tag == "h2"] == SECTIONS
    assert "No week that was forecast has been reported yet" in page.text
    assert "There is no earlier forecast of the same weeks" in page.text
    assert "No drift of features was measured yet" in page.text
    assert "No publishing was counted yet." in page.text
    assert "No run was counted yet" in page.text
    assert page.text.count("not known yet") == 6
    assert page.count("svg") == 2  # the total with its forecasts, and the distribution of the target


def test_the_page_is_whole_without_any_row(con: duckdb.DuckDBPyConnection) -> None:
    clean_all(con, PANEL)

    page = Page(monitoring_page(con, PANEL, made(PANEL, 1430)))

    assert [text for tag, text in page.texts if tag == "h2"] == SECTIONS
    assert "There is no turnover to show." in page.text
    assert page.count("svg") == 0


def test_a_single_cutoff_with_an_outcome_is_drawn(con: duckdb.DuckDBPyConnection) -> None:
    insert_frames(con, PANEL, default_history())
    last = newest(con, PANEL)
    keep_published(con, PANEL, [last - 1])
    fill_monitoring(con, PANEL, [last], [])

    assert "Error by cutoff" in page_of(con).text


def test_figures_that_are_not_known_are_shown_as_such(con: duckdb.DuckDBPyConnection) -> None:
    """All was zero: no share can be told, of what was reported or of what was forecast."""
    insert_frames(con, PANEL, default_history())
    con.execute("UPDATE cleaned.turnover SET turnover = 0")
    last = newest(con, PANEL)
    keep_published(con, PANEL, range(last - 3, last + 1))
    fill_monitoring(con, PANEL, range(last - 3, last + 1), DEPARTMENTS)
    for table, columns in {
        tables.ACCURACY: ("wape", "wape_seasonal_naive", "wape_promised", "bias", "coverage_80"),
        tables.DRIFT: ("psi", "wasserstein", "mean"),
        tables.STABILITY: ("change", "shift"),
        tables.MEASURES: ("value",),
    }.items():
        con.execute(
            f"UPDATE {table} SET {', '.join(f'{name} = CAST(?1 AS DOUBLE)' for name in columns)}".replace(
                "?1", "'nan'"
            )
        )

    page = page_of(con)

    assert "nan" not in page.text.lower().replace("financ", "")
    assert "not known yet" in page.text


def test_a_daily_panel_has_its_page(con: duckdb.DuckDBPyConnection) -> None:
    panel = daily()
    insert_frames(con, panel, daily_history())
    last = newest(con, panel)
    fill_features(con, panel)
    keep_published(con, panel, range(last - 20, last + 1))
    fill_monitoring(con, panel, range(last - 20, last + 1), ["north", "côte d'or"])

    page = page_of(con, panel)

    assert "Error by days ahead" in page.text
    assert "the same days of last year" in page.text
    of_features = (
        r"day of the week|weekday|\d weeks? (before|after) the (newest known|same day)|within \d weeks? of"
    )
    assert re.findall(r".{40}week.{20}", re.sub(of_features, "", page.text)) == []
    assert "côte d'or" in page.text


# Safe, small, for everyone ------------------------------------------------------------------------


def test_the_page_needs_no_network_and_runs_no_code(whole: Page) -> None:
    page = whole

    assert [found for found in page.addresses if not re.fullmatch(r"#[\w-]+|index\.html", found)] == []
    assert not {"script", "link", "iframe", "object", "img"} & {tag for tag, _ in page.elements}
    assert "default-src 'none'" in page.html
    assert not re.search(r"url\((?!#)|@import", page.html)


def test_links_within_the_page_lead_somewhere(whole: Page) -> None:
    page = whole

    identifiers = {found.get("id") for _, found in page.elements}
    within = {found[1:] for found in page.addresses if found.startswith("#")}
    assert within
    assert within <= identifiers


def test_figures_and_tables_can_be_read_out(whole: Page) -> None:
    page = whole

    labels = [a.get("aria-label") for tag, a in page.elements if tag == "figure" and a.get("role") == "img"]
    assert len(labels) == page.count("svg") == 11
    assert all(labels)
    assert all(found.get("scope") == "col" for tag, found in page.elements if tag == "th")


def test_what_came_from_files_and_people_is_only_text(con: duckdb.DuckDBPyConnection) -> None:
    panel = daily()
    days = [
        f"{day.day:02}/{day.month:02}/{day.year}"
        for day in (date(2021, 1, 1) + timedelta(i) for i in range(40))
    ]
    rows = [{"shop": EVIL, "day": day, "amount": "5"} for day in days]
    insert_raw(con, panel, [RawFile("takings", rows)])
    clean_all(con, panel)
    last = newest(con, panel)
    keep_published(con, panel, range(last - 10, last + 1))
    fill_monitoring(con, panel, range(last - 10, last + 1), [EVIL])
    con.execute("UPDATE monitoring.runs SET cause = ?, job = ?, run_id = ?", [EVIL] * 3)
    con.execute("UPDATE monitoring.steps SET asset = ?, run_id = ?", [EVIL] * 2)
    insert(con, tables.DRIFT, {"cutoff": label_of(panel, last), "kind": "feature", "name": EVIL, "psi": 9.0})

    page = page_of(con, panel, alerts=[dict.fromkeys(ALERT, EVIL)])

    assert page.text.count(EVIL) >= 12
    assert not {"script", "b", "img"} & {tag for tag, _ in page.elements}
    assert all("onerror" not in found for _, found in page.elements)


def test_the_page_of_a_large_retailer_is_small_and_made_in_seconds(known: duckdb.DuckDBPyConnection) -> None:
    last = newest(known, PANEL)
    label = label_of(PANEL, last)
    keys = pd.DataFrame({"store": range(1000, 1400)}).merge(
        pd.DataFrame({"department": [73, 88, 117]}), how="cross"
    )
    known.register("many", keys.assign(cutoff=label, last_reported=label))
    known.execute(f"INSERT INTO {tables.MISSING_SERIES} BY NAME SELECT * FROM many")
    seen = {"level": "store", "cutoff": label, "measure": "wape", "value": 0.3}
    insert(known, tables.MEASURES, *({**seen, "member": str(member)} for member in range(300)))
    total = {"level": "total", "member": "", "basis": "series", "wape": 0.2, "wape_seasonal_naive": 0.3}
    past = ({**total, "cutoff": label_of(PANEL, last - k)} for k in range(10, 150))
    insert(known, tables.ACCURACY, *past)

    began = time.process_time()
    page = page_of(known)

    assert len(page.html.encode()) < 1_500_000
    assert time.process_time() - began < 10  # of the processors; about 2 s are usual
    assert "1,201 series, 20 of them here" in page.text
    assert "The 12 least accurate of 300" in page.text


def test_the_same_tables_give_the_same_page(known: duckdb.DuckDBPyConnection) -> None:
    assert page_of(known).html == page_of(known).html


# The headline -------------------------------------------------------------------------------------


def facts(measures: dict[str, float], **others: Any) -> dict[str, Fact]:
    given: dict[str, Any] = {
        "newest": {"series_missing": 0, "series_expected": 10},
        "features": {"rows": [{}] * 8, "drifted": 0},
        "target": None,
        "alerts": None,
        **others,
    }
    found = headline(PANEL, measures, accuracy_ratio=1.25, **given)
    return {fact.name: fact for fact in found}


NAIVE = {"wape_seasonal_naive": 0.3, "wape_promised": 0.2}


@pytest.mark.parametrize(
    ("measures", "verdict", "word"),
    [
        ({}, UNKNOWN, "not known yet"),
        ({"wape": 0.2, "wape_over_promised": 1.25, **NAIVE}, GOOD, "as promised"),
        ({"wape": 0.2, "wape_over_promised": 1.26, **NAIVE}, LOOK, "worse than promised"),
        ({"wape": 0.3, "wape_over_promised": 1.0, **NAIVE}, LOOK, "no better than last year"),
        ({"wape": 0.2, "wape_seasonal_naive": 0.3}, GOOD, "better than last year"),
        ({"wape": 0.2}, "plain", ""),
    ],
    ids=["nothing", "at the limit", "beyond", "naive", "no promise", "alone"],
)
def test_accuracy_has_a_verdict(measures: dict[str, float], verdict: str, word: str) -> None:
    fact = facts(measures)["Error (WAPE)"]

    assert (fact.verdict, fact.word) == (verdict, word)


@pytest.mark.parametrize(
    ("inner", "outer", "word"),
    [
        (0.8, 0.95, "as meant"),
        (0.74, 0.95, "bounds too narrow"),
        (0.8, 0.89, "bounds too narrow"),
        (0.91, 1, "bounds too wide"),
    ],
)
def test_coverage_has_a_verdict(inner: float, outer: float, word: str) -> None:
    assert facts({"coverage_80": inner, "coverage_95": outer})["Within 80 % bounds"].word == word


@pytest.mark.parametrize(
    ("bias", "signal", "verdict", "word"),
    [
        (-0.03, 4.0, GOOD, "balanced"),
        (-0.03, -4.1, LOOK, "too low"),
        (0.1, 1.0, PLAIN, "too high"),
        (0.11, 1.0, LOOK, "too high"),
    ],
)
def test_bias_has_a_verdict(bias: float, signal: float, verdict: str, word: str) -> None:
    fact = facts({"bias": bias, "tracking_signal": signal})["Bias"]

    assert (fact.verdict, fact.word) == (verdict, word)


@pytest.mark.parametrize(
    ("drifted", "target", "word"),
    [
        (0, None, "no drift"),
        (1, {"psi": 0.1, "is_drifted": False}, "some drift"),
        (2, None, "drifted"),
        (0, {"psi": 0.6, "is_drifted": True}, "drifted"),
    ],
)
def test_drift_has_a_verdict(drifted: int, target: dict[str, Any] | None, word: str) -> None:
    found = facts({}, features={"rows": [{}] * 8, "drifted": drifted}, target=target)

    assert found["Features drifted"].word == word


@pytest.mark.parametrize(("missing", "word"), [(0, "complete"), (5, "some missing"), (6, "many missing")])
def test_missing_series_have_a_verdict(missing: int, word: str) -> None:
    found = facts({}, newest={"series_missing": missing, "series_expected": 100})

    assert found["Missing series"].word == word


# The list of pages, and the asset -----------------------------------------------------------------


def test_the_list_of_pages_has_the_newest_first_with_its_figures(known: duckdb.DuckDBPyConnection) -> None:
    last = newest(known, PANEL)
    cutoffs = [label_of(PANEL, t) for t in (last, last - 1, last - 400)]

    page = Page(index_page(known, PANEL, made(PANEL, last), cutoffs))

    assert page.addresses == [f"{cutoff}.html" for cutoff in cutoffs]
    assert "22.5 % +2.1 % 81.0 %" in page.text
    assert page.text.endswith(f"{cutoffs[2]}" + " -" * 8)


def test_pages_are_listed_by_their_dates_and_nothing_else(tmp_path: Path) -> None:
    for name in ("2030-06-01.html", "2030-06-08.html", "index.html", "20300615.html", "2030-06-22.txt"):
        write_page(tmp_path / name, "")

    assert dated(tmp_path) == [date(2030, 6, 8), date(2030, 6, 1)]
    assert dated(tmp_path / "nothing") == []


def test_each_publishing_makes_the_page_of_its_cutoff_and_lists_it(plain: Landed) -> None:
    cutoff = current(plain.settings.published_path).facts["cutoff"]
    folder = plain.settings.monitoring_pages_path

    page, index = (Page((folder / name).read_text("utf-8")) for name in (f"{cutoff}.html", "index.html"))

    assert [text for tag, text in page.texts if tag == "h2"] == ["Alerts", *SECTIONS]
    assert f"{cutoff}.html" in index.addresses
    assert cutoff in page.text


def test_nothing_waits_for_the_page() -> None:
    graph = build_definitions(load_settings()).resolve_asset_graph()

    assert graph.get(common.MONITORING_PAGE).child_keys == set()
    assert graph.get(common.MONITORING_PAGE).parent_keys == {common.MONITORING}
