"""The workbook: what its cells say, beside the export; its formulas; texts that could be formulas."""

import io
import itertools
import re
import shutil
import subprocess
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnover_assets.core.processes import ALONE, Processes
from turnover_assets.core.workbook import Content, workbook
from turnover_assets.core.workbook.cells import PlainFormulas
from turnover_assets.core.workbook.content import file_stem
from turnover_assets.errors import NoSnapshotError, UnknownNameError
from turnover_assets.panel import default_panel
from turnover_assets.storage import workbook_files
from turnover_assets.storage.snapshots import Snapshot, current
from turnover_assets.storage.workbook_files import make_books
from turnover_assets.storage.workbook_source import WorkbookSource
from turnover_assets_tests.factories import Landed, daily, make_panel
from turnover_assets_tests.workbook_files import (
    CUTOFF,
    cells,
    content_of,
    converted,
    grid,
    read,
    text_panel,
    with_part,
    without_values,
)

SHEETS = ["Summary", "Forecast", "Chart", "Last year", "Accuracy", "Details", "Notes"]
PLAIN_KEYS = [("north", "toys"), ("north", "food"), ("south", "toys"), ("south", "food")]
WIDER = 1.15  # than its width in characters a column is for small letters
HOSTILE = [
    ('=HYPERLINK("http://x.example","click")', "+1+1"),
    ("-2+3", "@SUM(A1:A9)"),
    ("\t=1+1", "\r=1"),
    ("{=1}", "http://x.example"),
    ("a\x01b", 'line\nbreak & <tag> "quoted" \' %'),
]


@pytest.fixture(scope="module")
def snapshot(landed: Landed) -> Snapshot:
    return current(landed.settings.published_path)


@pytest.fixture(scope="module")
def source(snapshot: Snapshot) -> Iterator[WorkbookSource]:
    with WorkbookSource(snapshot, default_panel(), "region") as found:
        yield found


@pytest.fixture(scope="module")
def content(source: WorkbookSource) -> Content:
    return source.content(source.members[0])


@pytest.fixture(scope="module")
def made(content: Content) -> bytes:
    return workbook(content)


def exported(snapshot: Snapshot, content: Content) -> pd.DataFrame:
    """The published forecasts of the content's member, found another way."""
    regions = snapshot.read("stores").set_index("store")["region"]
    table = snapshot.read("forecasts")
    return table[table["store"].map(regions) == int(content.member)].reset_index(drop=True)


def _assert_same(found: Any, expected: Any) -> None:
    """Numbers are written with 16 digits, of which the last may differ."""
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), rtol=1e-14)


# Beside the export ----------------------------------------------------------------------------------


def test_a_workbook_has_its_sheets_in_order(made: bytes) -> None:
    assert read(made).sheetnames == SHEETS


def test_forecasts_are_those_of_the_export(snapshot: Snapshot, content: Content, made: bytes) -> None:
    table = exported(snapshot, content)
    found = grid(read(made)["Forecast"], "Growth").iloc[:-1]
    wide = table.pivot_table(index=["store", "department"], columns="week", values="forecast")

    assert list(found["Store"]) == [store for store, _ in wide.index]
    assert list(found["Department"]) == [department for _, department in wide.index]
    for week in wide.columns:
        _assert_same(found[str(week)].to_numpy(float), wide[week].to_numpy())
    np.testing.assert_allclose(found["Forecast"].to_numpy(float), wide.sum(axis=1), rtol=1e-12)


def test_details_are_all_the_export_has(snapshot: Snapshot, content: Content, made: bytes) -> None:
    table = exported(snapshot, content)
    found = grid(read(made)["Details"], "Why")
    explained = snapshot.read("explanations")
    why = table.merge(explained, on=["store", "department", "horizon"], validate="one_to_one")["sentence"]

    assert len(found) == len(table)
    assert list(found["Week"].dt.date) == list(table["week"])
    assert list(found["Ahead"]) == list(table["horizon"])
    for ours, theirs in (
        ("Forecast", "forecast"),
        ("Likely from (80 %)", "lower_80"),
        ("Likely to (80 %)", "upper_80"),
        ("From (95 %)", "lower_95"),
        ("To (95 %)", "upper_95"),
    ):
        _assert_same(found[ours].to_numpy(float), table[theirs].to_numpy())
    assert list(found["Why"]) == list(why)


def test_sums_and_their_bounds_are_those_of_the_aggregates(
    snapshot: Snapshot, content: Content, made: bytes
) -> None:
    sums = snapshot.read("aggregates")
    sums = sums[(sums["level"] == "region") & (sums["member"] == content.member)]
    found = grid(read(made)["Summary"], "Likely from").iloc[:-1]

    np.testing.assert_allclose(found["Forecast"].to_numpy(float), sums["forecast"], rtol=1e-9)
    _assert_same(found["Likely from"].to_numpy(float), sums["lower_80"])
    _assert_same(found["Likely to"].to_numpy(float), sums["upper_80"])


def test_last_year_is_what_the_history_had_a_season_before(
    snapshot: Snapshot, content: Content, made: bytes
) -> None:
    table = exported(snapshot, content)
    history = snapshot.read("turnover").set_index(["store", "department", "week"])
    places = [
        (store, department, week - pd.Timedelta(weeks=52))
        for store, department, week in zip(table["store"], table["department"], table["week"], strict=True)
    ]
    expected = history.reindex(pd.MultiIndex.from_tuples(places))
    found = grid(read(made)["Details"], "Why")

    adjusted = expected["turnover_adjusted"].to_numpy(float) * _in_force(snapshot, table)
    np.testing.assert_allclose(found["Last year"].to_numpy(float), adjusted, rtol=1e-12)
    _assert_same(found["Last year as reported"].to_numpy(float), expected["turnover"].to_numpy(float))
    assert np.isfinite(adjusted).any()


def _in_force(snapshot: Snapshot, table: pd.DataFrame) -> np.ndarray[Any, Any]:
    """The scale in force, as the explanations have it: reference over the adjusted value a year ago."""
    explained = snapshot.read("explanations")
    explained = explained[explained["compared_with"] == "year ago"]
    history = snapshot.read("turnover").set_index(["store", "department", "week"])["turnover_adjusted"]
    scale = {}
    for one in explained.itertuples():
        value = history.get((one.store, one.department, one.week - pd.Timedelta(weeks=52)))
        if value:
            scale[one.store, one.department] = one.reference / value
    keys = zip(table["store"], table["department"], strict=True)
    return np.array([scale.get(key, 1.0) for key in keys])


def test_the_scale_in_force_is_that_of_the_explanations(snapshot: Snapshot) -> None:
    with WorkbookSource(snapshot, default_panel(), "total") as source:
        content = source.content("")
    explained = snapshot.read("explanations")
    by = ["store", "department", "horizon"]
    both = content.forecasts.merge(explained[[*by, "compared_with", "reference"]], on=by)
    both = both[both["compared_with"] == "year ago"]

    assert len(both) > 50
    np.testing.assert_allclose(both["last_year"], both["reference"], rtol=1e-9)


def test_every_level_can_be_asked_for_and_agrees_with_the_others(snapshot: Snapshot) -> None:
    totals = {}
    for level in ("department", "store", "region", "total"):
        with WorkbookSource(snapshot, default_panel(), level) as source:
            made = [source.content(member) for member in source.members]
        totals[level] = sum(one.forecasts["forecast"].sum() for one in made)

    np.testing.assert_allclose(list(totals.values()), snapshot.read("forecasts")["forecast"].sum())


def test_promises_are_those_of_the_backtest(snapshot: Snapshot, content: Content, made: bytes) -> None:
    table = snapshot.read("backtest_accuracy")
    chosen = table[
        (table["scope"] == "region") & (table["member"] == content.member) & table["cutoff"].isna()
    ].set_index(["model", "basis"])["wape"]
    found = grid(read(made)["Accuracy"], "This model").set_index("Measure")

    candidate = snapshot.facts["model"]["candidate"]
    _assert_same(found.loc["Error of single series", "This model"], chosen[candidate, "series"])
    _assert_same(found.loc["Error of single series", "Last year's"], chosen["seasonal_naive", "series"])
    _assert_same(found.loc["Error of the sum", "This model"], chosen[candidate, "sums"])


def test_notes_have_the_adjustments_that_concern_it_and_no_others(snapshot: Snapshot) -> None:
    table = snapshot.read("adjustments")
    single = table[table["members"].str.contains('"store"') & table["members"].str.contains('"department"')]
    assert len(single) > 0, "the synthetic retailer has defects of single series"
    with WorkbookSource(snapshot, default_panel(), "store") as source:
        for one in single.itertuples():
            store = re.search(r'"store": (\d+)', one.members)[1]  # type: ignore[index]
            for member in source.members:
                listed = set(source.content(member).adjustments["adjustment_id"])
                assert (one.adjustment_id in listed) == (member == store)


# Formulas -------------------------------------------------------------------------------------------


def test_every_formula_has_a_value(made: bytes) -> None:
    values = {(sheet, place): value for sheet, place, value in cells(read(made))}
    formulas = {
        (sheet, place): value
        for sheet, place, value in cells(read(made, formulas=True))
        if isinstance(value, str) and value.startswith("=")
    }

    empty = [place for place, formula in formulas.items() if place not in values and '""' not in formula]
    assert len(formulas) > 100
    assert empty == []


def test_totals_are_formulas_on_the_cells_above_them(made: bytes) -> None:
    book = read(made, formulas=True)
    summary = grid(book["Summary"], "Likely from")

    assert all(
        re.fullmatch(r"=SUM\(Forecast!\$\w+\$6:\$\w+\$\d+\)", text) for text in summary["Forecast"][:-1]
    )
    assert re.fullmatch(r"=SUM\(B9:B16\)", summary["Forecast"].iloc[-1])
    assert summary["Change"].iloc[0] == "=B9-E9"
    assert summary["Growth"].iloc[0] == '=IF(N(E9)>0,B9/E9-1,"")'
    totals = grid(book["Forecast"], "Growth").iloc[-1]
    assert totals["Forecast"].startswith("=SUBTOTAL(109,")


@pytest.mark.slow
@pytest.mark.libreoffice
@pytest.mark.parametrize("level", ["region", "total"])
def test_libreoffice_calculates_what_the_cells_were_written_with(
    snapshot: Snapshot, tmp_path: Path, level: str
) -> None:
    with WorkbookSource(snapshot, default_panel(), level) as source:
        made = workbook(source.content(source.members[0]))

    _compare_with_libreoffice(made, tmp_path)


@pytest.mark.slow
@pytest.mark.libreoffice
@pytest.mark.parametrize("keys", [PLAIN_KEYS, HOSTILE, [("1", "a"), ("01", "A"), ("<3", "a"), ("*", "b")]])
def test_libreoffice_tells_texts_apart_as_we_do(tmp_path: Path, keys: list[tuple[str, str]]) -> None:
    _compare_with_libreoffice(workbook(content_of(keys)), tmp_path)


def _compare_with_libreoffice(made: bytes, folder: Path) -> None:
    again = read(converted(without_values(made), folder, "xlsx").read_bytes())
    expected = {(sheet, place): value for sheet, place, value in cells(read(made))}
    formulas = [
        (sheet, place)
        for sheet, place, value in cells(read(made, formulas=True))
        if isinstance(value, str) and value.startswith("=") and (sheet, place) in expected
        if expected[sheet, place] != value
    ]
    wrong = {}
    for sheet, place in formulas:
        ours, theirs = expected[sheet, place], again[sheet][place].value
        same = (
            theirs == ours if isinstance(ours, str) else np.isclose(theirs or 0.0, ours, rtol=1e-9, atol=1e-9)
        )
        if not same:
            wrong[sheet, place] = (ours, theirs)
    assert len(formulas) > 30
    assert wrong == {}


@pytest.mark.libreoffice
def test_libreoffice_opens_it_without_a_warning_and_prints_each_sheet(made: bytes, tmp_path: Path) -> None:
    printed = converted(made, tmp_path, "pdf")

    sheets = read(made).sheetnames
    pages = len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes()))
    assert len(sheets) <= pages <= len(sheets) + 4  # the one of every forecast takes several
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not there (Debian's poppler-utils); the pages were counted only")
    text = subprocess.run(["pdftotext", "-layout", printed, "-"], capture_output=True, text=True, check=True)
    by_page = text.stdout.split("\f")[:-1]
    assert len(by_page) == pages
    # Each page has the name of its sheet at its head, and its number of how many at its foot.
    assert list(dict.fromkeys(re.split(r"\s{2,}", page.strip())[1] for page in by_page)) == sheets
    assert all(f"Page {k} of {pages}" in page for k, page in enumerate(by_page, start=1))
    assert str(read(made)["Summary"]["A1"].value) in by_page[0]
    assert not re.search(r"#(REF|NAME|VALUE|N/A|DIV/0)|Err:\d|###", text.stdout)


@pytest.mark.libreoffice
@pytest.mark.slow
@pytest.mark.parametrize("broken", ["torn", "not well-formed"])
def test_a_workbook_that_must_be_repaired_would_be_found(made: bytes, tmp_path: Path, broken: str) -> None:
    wrong = made[: len(made) // 2] if broken == "torn" else with_part(made, "xl/workbook.xml", b"<workbook")

    with pytest.raises(AssertionError, match="source file could not be loaded"):
        converted(wrong, tmp_path, "pdf")


def test_no_text_is_cut_off_by_the_cell_beside_it(made: bytes) -> None:
    book = read(made)

    cut = [
        (sheet.title, cell.coordinate, cell.value)
        for sheet in book
        for row in sheet.iter_rows()
        for cell, beside in itertools.pairwise(row)
        if isinstance(cell.value, str) and beside.value is not None and not cell.alignment.wrap_text
        if len(cell.value) > WIDER * sheet.column_dimensions[cell.column_letter].width
    ]
    assert cut == []
    assert any(
        "_restated.csv" in str(value) for _, _, value in cells(book)
    )  # a long name, in a narrow column


# Texts from outside ---------------------------------------------------------------------------------


def test_texts_that_look_like_formulas_stay_texts() -> None:
    adjustments = pd.DataFrame(
        [
            {
                "status": "applied",
                "selector": "=cmd|' /C calc'!A0",
                "since": CUTOFF,
                "until": None,
                "kind": "divide",
                "factor": 2.0,
                "value": np.nan,
                "reason": "@SUM(1)",
                "who": "+me",
                "rows": 3,
            }
        ]
    )
    made = workbook(content_of(HOSTILE, adjustments=adjustments))
    book = read(made, formulas=True)

    texts = {one.value: one for sheet in book.worksheets for row in sheet.iter_rows() for one in row}
    for text in ("=cmd|' /C calc'!A0", "@SUM(1)", "+me", "-2+3", '=HYPERLINK("http://x.example","click")'):
        assert texts[text].data_type == "s"
        assert texts[text].quotePrefix
    assert [sheet.title for sheet in book.worksheets if sheet._hyperlinks] == []
    assert _formulas(made).isdisjoint(key for keys in HOSTILE for key in keys)


def _formulas(made: bytes) -> set[str]:
    """The texts of all formulas in the file."""
    found = set()
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        for name in archive.namelist():
            if name.startswith("xl/worksheets/sheet"):
                tree = ET.fromstring(archive.read(name))
                found |= {node.text or "" for node in tree.iter() if node.tag.endswith("}f")}
    return found


@settings(max_examples=25)  # a workbook each
@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), min_size=1, max_size=4, unique=True))
def test_any_texts_can_be_keys(keys: list[tuple[str, str]]) -> None:
    made = workbook(content_of(keys, text_panel()))

    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        for name in archive.namelist():
            ET.fromstring(archive.read(name))
    assert _formulas(made).isdisjoint(f"={text}" for key in keys for text in key)


def test_names_and_headings_keep_the_limits_of_excel() -> None:
    member = "&" * 300
    made = workbook(content_of(PLAIN_KEYS, level="shop", member=member))

    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        sheet = ET.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    heads = [node.text or "" for node in sheet.iter() if node.tag.endswith(("oddHeader", "oddFooter"))]
    assert len(heads) == 2
    assert all(len(head) <= 255 for head in heads)


def test_a_text_longer_than_a_cell_is_cut() -> None:
    content = content_of(PLAIN_KEYS)
    long = replace(content, forecasts=content.forecasts.assign(sentence="x" * 40_000))

    assert set(grid(read(workbook(long))["Details"], "Why")["Why"].str.len()) == {32_767}


@pytest.mark.parametrize(
    ("one", "other"),
    [("a/b", "a_b"), ("a", "A"), ("é", "e"), (".." + "/" * 4, "../.._/"), ("x" * 90, "x" * 91)],
)
def test_files_of_two_members_never_have_one_name(one: str, other: str) -> None:
    stems = [file_stem("shop", member) for member in (one, other)]

    assert len({stem.casefold() for stem in stems}) == 2
    assert all("/" not in stem and len(stem) < 120 for stem in stems)


# Shape ----------------------------------------------------------------------------------------------


def test_the_same_content_gives_the_same_bytes(snapshot: Snapshot, content: Content, made: bytes) -> None:
    with WorkbookSource(snapshot, default_panel(), "region") as again:
        assert workbook(again.content(content.member)) == made


def test_two_processes_make_what_one_does(
    source: WorkbookSource, content: Content, made: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbook_files, "MANY", source.forecasts)

    alone, together = (list(make_books(source, source.members, count)) for count in (1, 2))

    assert len(source.members) > 1
    assert together == alone
    assert (content.file_name, made) in alone


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many processes were asked for, each time; none of them begins."""
    asked: list[int] = []

    def beside(count: int) -> AbstractContextManager[Processes]:
        asked.append(count)
        return nullcontext(ALONE)

    monkeypatch.setattr(Processes, "beside", beside)
    return asked


@pytest.mark.parametrize(
    ("many", "threads", "wanted"),
    [(10**9, 16, 1), (1, 16, 2), (1, 1, 1)],
    ids=["few forecasts", "one for each member", "one thread"],
)
def test_no_more_processes_are_begun_than_there_is_work_for(
    many: int,
    threads: int,
    wanted: int,
    source: WorkbookSource,
    begun: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workbook_files, "MANY", many)

    made = list(make_books(source, source.members, threads))

    assert len(made) == len(source.members) == 2
    assert begun == [wanted]


def test_processes_are_as_many_as_the_members_asked_for_have_work_for(
    source: WorkbookSource, begun: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbook_files, "MANY", source.forecasts + 1)

    for members in ([source.members[0]], [source.members[0]] * 4):  # half of the forecasts, and twice as many
        list(make_books(source, members, 16))

    assert begun == [1, 2]


def test_formulas_are_written_as_the_library_writes_them(
    content: Content, made: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(PlainFormulas, "_prepare_formula")
    assert workbook(content) == made


def test_a_large_workbook_has_the_same_cells_without_tables() -> None:
    content = content_of(PLAIN_KEYS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # xlsxwriter warns of what it leaves out
        small, large = workbook(content), workbook(content, large=1)

    assert list(cells(read(large))) == list(cells(read(small)))
    assert list(cells(read(large, formulas=True))) == list(cells(read(small, formulas=True)))
    assert read(small)["Forecast"].tables.keys() == {"ForecastTable"}
    assert not read(large)["Forecast"].tables
    assert read(large)["Forecast"].auto_filter.ref == "A5:L9"
    assert workbook(content, large=1) == large


def test_panes_filters_colours_and_print_are_set_up(made: bytes) -> None:
    sheet = read(made)["Forecast"]

    assert sheet.freeze_panes == "C6"
    (table,) = sheet.tables.values()
    assert table.autoFilter is not None
    rules = [rule.formula[0] for span in sheet.conditional_formatting for rule in span.rules]
    assert len(rules) == 6
    assert all("$A$3" in rule and "$B$3" in rule for rule in rules)
    assert sheet.page_setup.orientation == "landscape"
    assert sheet.page_setup.fitToHeight == 0
    assert sheet.print_title_rows == "$5:$5"
    folded = sheet.column_dimensions["O"]
    assert (folded.hidden, folded.outlineLevel, folded.min, folded.max) == (True, 1, 15, 22)


def test_the_chart_draws_history_forecast_last_year_and_range(made: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        text = archive.read("xl/charts/chart1.xml").decode()

    drawn = re.findall(r"<c:tx>.*?<c:v>(.*?)</c:v>", text)
    assert {"Likely range", "History", "Last year", "Forecast"} <= set(drawn)


def test_days_and_flags_and_nothing_a_year_ago_can_be_shown() -> None:
    days = content_of([("north",), ("côte d'or",)], daily(), seed=2)
    nothing = replace(days, forecasts=days.forecasts.assign(last_year=np.nan, reported_last_year=np.nan))

    summary = grid(read(workbook(nothing))["Summary"], "Likely from")

    assert len(summary) == 15  # the days and their total
    assert summary["Growth"].isna().all()
    assert "100.0% of the forecast has no last year" in " ".join(
        str(value) for _, _, value in cells(read(workbook(nothing)))
    )


def test_an_empty_history_still_gives_a_workbook() -> None:
    content = content_of(PLAIN_KEYS)

    made = workbook(replace(content, history=content.history.iloc[:0]))

    assert len(grid(read(made)["Chart"], "Shading height")) == content.panel.horizon


def test_judged_forecasts_are_listed_with_their_errors() -> None:
    weeks = [date(2030, 5, 27), date(2030, 5, 20)]
    outcomes = pd.DataFrame(
        {
            "week": weeks,
            "cutoff": [date(2030, 5, 20), date(2030, 5, 13)],
            "horizon": [1, 1],
            "forecast": [110.0, 90.0],
            "actual": [100.0, 0.0],
        }
    )
    sheet = read(workbook(content_of(PLAIN_KEYS, outcomes=outcomes)))["Accuracy"]
    found = grid(sheet, "Weeks ahead")

    assert list(found["Difference"]) == [10.0, 90.0]
    assert list(found["In parts"].isna()) == [False, True]
    assert found["In parts"][0] == pytest.approx(0.1)


# What cannot be ------------------------------------------------------------------------------------


def test_an_unknown_level_or_member_is_told_with_those_there_are(
    snapshot: Snapshot, source: WorkbookSource
) -> None:
    with pytest.raises(UnknownNameError, match=r"no level named 'planet'.*department, region, store, total"):
        WorkbookSource(snapshot, default_panel(), "planet")
    with pytest.raises(UnknownNameError, match=r"no region named '999'"):
        source.content("999")


def test_a_snapshot_of_another_panel_is_refused(snapshot: Snapshot) -> None:
    with pytest.raises(NoSnapshotError, match=r"is of the panel 'retail-case-study', not of 'small'"):
        WorkbookSource(snapshot, make_panel(), "shop")


def test_a_snapshot_of_an_earlier_release_has_workbooks_by_key_alone(snapshot: Snapshot) -> None:
    few = dict(snapshot.facts["tables"])
    for name in (
        "stores",
        "backtest_accuracy",
        "backtest_aggregates",
        "gate_checks",
        "explanations",
        "checks",
    ):
        del few[name]
    earlier = Snapshot(snapshot.folder, {**snapshot.facts, "tables": few})

    with pytest.raises(NoSnapshotError, match=r"has no region of its series.*turnover run --retrain"):
        WorkbookSource(earlier, default_panel(), "region")
    with WorkbookSource(earlier, default_panel(), "store") as source:
        sheet = read(workbook(source.content(source.members[0])))["Accuracy"]
    assert "There were no tests, or none of this member." in [value for *_, value in _texts(sheet)]


def _texts(sheet: Any) -> Iterator[tuple[str, Any]]:
    return ((one.coordinate, one.value) for row in sheet.iter_rows() for one in row if one.value is not None)


def test_a_damaged_file_is_told(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "forecasts.parquet").write_bytes(b"no parquet")
    tables = {"forecasts": snapshot.facts["tables"]["forecasts"]}
    damaged = Snapshot(tmp_path, {**snapshot.facts, "tables": tables})

    with pytest.raises(NoSnapshotError, match=r"cannot be read \(.*too small.*turnover run"):
        WorkbookSource(damaged, default_panel(), "store")
