"""The profile page: one file, safe whatever files hold, and whole whatever is missing."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from turnover_assets.core.adjustments import COLUMNS as ADJUSTMENT_COLUMNS
from turnover_assets.core.pages import PLOTS, profile_page
from turnover_assets.core.profiling import ProfiledRun, keep_profile
from turnover_assets.core.templating import number
from turnover_assets.definitions import build_definitions
from turnover_assets.defs import common
from turnover_assets.errors import HomeError
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets.settings import load_settings
from turnover_assets.storage.pages import write_page
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.factories import (
    Landed,
    RawFile,
    clean_all,
    daily,
    default_history,
    insert_frames,
    insert_raw,
    walmart_history,
    walmart_like,
)
from turnover_assets_tests.html_pages import EVIL, Page

PANEL = default_panel()
RUN = ProfiledRun("run 1", datetime(2030, 6, 1, 12, tzinfo=UTC), "0123456789abcdef")
SECTIONS = [
    "Findings",
    "Adjustments",
    "Periods",
    "Gaps",
    "Distribution of turnover",
    "Restatements",
    "Rejected rows",
    "Files",
    "Tables",
    "Runs",
]
FINDING = {
    "finding_id": "VARCHAR",
    "kind": "VARCHAR",
    "selector": "VARCHAR",
    "members": "VARCHAR",
    "since": "DATE",
    "until": "DATE",
    "ongoing": "BOOLEAN",
    "factor": "DOUBLE",
    "effect": "DOUBLE",
    "error": "DOUBLE",
    "strength": "DOUBLE",
    "remedy": "VARCHAR",
    "value": "DOUBLE",
    "rows": "BIGINT",
    "sentence": "VARCHAR",
}


def page_of(con: duckdb.DuckDBPyConnection, panel: PanelSpec = PANEL) -> Page:
    keep_profile(con, panel, RUN)
    return Page(profile_page(con, panel, RUN, "1.2.3"))


def fill(
    con: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, str], *rows: dict[str, Any]
) -> None:
    con.execute(
        f"CREATE OR REPLACE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})"
    )
    for row in rows:
        con.execute(
            f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})",
            [row.get(name) for name in columns],
        )


def finding(number_: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "finding_id": f"id {number_:03}",
        "kind": "block",
        "selector": "department 88",
        "members": '{"department": 88}',
        "since": date(2016, 1, 2),
        "until": date(2016, 6, 25),
        "ongoing": False,
        "factor": 2.0,
        "strength": 100.0 - number_,
        "remedy": "divide",
        "rows": 5,
        "sentence": f"Department 88 is reported twice, sentence {number_}.",
    } | changes


@pytest.fixture
def history(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    insert_frames(con, PANEL, default_history())
    return con


def test_the_page_needs_no_network_and_runs_no_code(history: duckdb.DuckDBPyConnection) -> None:
    page = page_of(history)

    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href", "action", "data", "poster"}
    ]
    assert addresses
    assert [found for found in addresses if not str(found).startswith(("#", "data:image/png;base64,"))] == []
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert "default-src 'none'" in page.html
    assert not re.search(r"url\((?!#)|@import", page.html)


def test_each_section_stands_under_its_heading_and_tables_have_theirs(
    history: duckdb.DuckDBPyConnection,
) -> None:
    fill(history, "cleaned.findings", FINDING, finding())

    page = page_of(history)

    assert [text for tag, text in page.texts if tag == "h2"] == SECTIONS
    assert page.count("h1") == 1
    assert all(attributes.get("scope") == "col" for tag, attributes in page.elements if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in page.elements if tag == "img")
    labels = [a.get("aria-label") for tag, a in page.elements if tag == "figure" and a.get("role") == "img"]
    assert len(labels) == page.count("svg") == 4
    assert all(labels)


def test_what_came_from_files_and_people_is_only_text(con: duckdb.DuckDBPyConnection) -> None:
    panel = daily()
    rows = [
        {"shop": EVIL, "day": day, "amount": y}
        for day, y in (("01/06/2017", "1"), ("04/06/2017", "2"), ("05/06/2017", EVIL))
    ]
    insert_raw(con, panel, [RawFile("takings", rows), RawFile("takings", [rows[0] | {"amount": "3"}])])
    con.execute("UPDATE raw.files SET name = ? || file_no", [EVIL])
    clean_all(con, panel)
    members = '{"shop": "' + EVIL.replace('"', '\\"') + '"}'
    fill(con, "cleaned.findings", FINDING, finding(sentence=EVIL, selector=f"shop {EVIL}", members=members))
    fill(
        con,
        "cleaned.adjustments",
        ADJUSTMENT_COLUMNS,
        {"adjustment_id": "a", "status": "applied", "selector": EVIL, "who": EVIL, "reason": EVIL},
    )

    page = page_of(con, panel)

    assert page.text.count(EVIL) >= 8
    assert not {"script", "b"} & {tag for tag, _ in page.elements}
    assert [attributes["src"] for tag, attributes in page.elements if tag == "img"] != ["x"]
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert page.count("svg") == 4


def test_findings_come_strongest_first_with_a_picture_of_their_member(
    history: duckdb.DuckDBPyConnection,
) -> None:
    fill(
        history,
        "cleaned.findings",
        FINDING,
        finding(3, selector="region 7", members='{"region": 7}', ongoing=True),
        finding(2, selector="store 2, department 88", members='{"store": 2, "department": 88}'),
        finding(1),
        finding(4, selector="planet 9", members='{"planet": 9}'),
        finding(5, selector="department 9999", members='{"department": 9999}'),
    )

    page = page_of(history)

    heads = [text for tag, text in page.texts if tag == "h3"][:3]
    assert heads == ["department 88", "store 2, department 88", "region 7"]
    assert page.count("svg") == 3 + 3
    assert page.text.index("sentence 1.") < page.text.index("sentence 2.") < page.text.index("sentence 5.")


def test_a_history_without_defects_says_so(history: duckdb.DuckDBPyConnection) -> None:
    fill(history, "cleaned.findings", FINDING)

    assert "Nothing was found that looks wrong" in page_of(history).text


def test_adjustments_show_their_status_reason_and_end(history: duckdb.DuckDBPyConnection) -> None:
    given = {"adjustment_id": "a", "status": "vetoed", "selector": "store 2", "since": date(2016, 1, 2)}
    fill(history, "cleaned.adjustments", ADJUSTMENT_COLUMNS, given | {"reason": "A flood", "who": "Ada"})

    text = page_of(history).text

    assert "vetoed store 2" in text
    assert "2016-01-02 goes on" in text
    assert "Ada A flood" in text


def test_gaps_restatements_and_rejected_rows_are_told(con: duckdb.DuckDBPyConnection) -> None:
    def sales(*rows: tuple[str, str]) -> RawFile:
        return RawFile(
            "turnover",
            [{"week": week, "store": "1", "department": "73", "turnover": y} for week, y in rows],
        )

    bad = [("soon", "1")] * 5
    insert_raw(
        con,
        PANEL,
        [sales(("2017-05-06", "10"), ("2017-06-10", "1234567"), *bad), sales(("2017-05-06", "11"))],
    )
    clean_all(con, PANEL)

    text = page_of(con).text

    assert "1 73 4 2017-05-06 2017-06-10" in text
    assert "1 73 2017-05-06 10 11 file_1 2 file_2 2 2030-06-01 12:00" in text
    assert "5 in turnover, for example:" in text
    assert text.count("day_id is not a date (YYYY-MM-DD): soon") == 3


def test_the_page_is_whole_where_there_is_nothing_yet(con: duckdb.DuckDBPyConnection) -> None:
    clean_all(con, PANEL)

    page = page_of(con)

    assert [text for tag, text in page.texts if tag == "h2"] == SECTIONS
    assert "There are no rows." in page.text
    assert "has not been searched" in page.text
    assert page.count("svg") == page.count("img") == 0


@pytest.mark.parametrize("values", [["5", "5"], ["0", "0"], ["-1e15", "1e15"], ["-3", "-2"]], ids=str)
def test_any_values_can_be_drawn(con: duckdb.DuckDBPyConnection, values: list[str]) -> None:
    weeks = ["2017-06-03", "2017-06-10"]
    rows = [
        {"week": week, "store": "1", "department": "73", "turnover": y}
        for week, y in zip(weeks, values, strict=True)
    ]
    insert_raw(con, PANEL, [RawFile("turnover", rows)])
    clean_all(con, PANEL)

    assert page_of(con).count("svg") == 3


def test_another_panel_has_its_page(con: duckdb.DuckDBPyConnection) -> None:
    panel = walmart_like()
    insert_frames(con, panel, walmart_history())
    fill(con, "cleaned.findings", FINDING, finding(selector="kind A", members='{"kind": "A"}'))

    page = page_of(con, panel)

    assert "Distribution of amount" in page.text
    assert "cleaned.features" in page.text


def test_a_page_of_very_many_findings_stays_small(history: duckdb.DuckDBPyConnection) -> None:
    fill(history, "cleaned.findings", FINDING, *(finding(i, sentence="x" * 300) for i in range(230)))

    page = page_of(history)

    assert len(page.html.encode()) < 1_500_000
    assert page.count("svg") == PLOTS + 3
    assert "turnover export findings" in page.text


def test_the_same_tables_give_the_same_page(history: duckdb.DuckDBPyConnection) -> None:
    fill(history, "cleaned.findings", FINDING, finding())

    assert page_of(history).html == page_of(history).html


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (1_234_567.8, "1,234,568"),
        (12, "12"),
        (0.123456, "0.1235"),
        (-69.79, "-69.79"),
        (date(2017, 6, 10), "2017-06-10"),
        ("department 88", "department 88"),
    ],
    ids=str,
)
def test_numbers_are_for_people(value: Any, expected: str) -> None:
    assert number(value) == expected


# The file ----------------------------------------------------------------------------------------


def test_a_page_replaces_the_one_before_it(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "profile.html"

    write_page(path, "first")
    write_page(path, "second é")

    assert path.read_text("utf-8") == "second é"
    assert list(path.parent.iterdir()) == [path]


def test_a_page_that_cannot_be_written_leaves_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reports" / "profile.html"
    write_page(path, "first")

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(HomeError, match="No space left on device"):
        write_page(path, "second")

    assert path.read_text("utf-8") == "first"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("a file")

    with pytest.raises(HomeError, match=r"profile\.html cannot be written"):
        write_page(tmp_path / "reports" / "profile.html", "page")


# The asset ---------------------------------------------------------------------------------------


def test_each_run_keeps_its_profile_and_makes_the_page(plain: Landed) -> None:
    published = current(plain.settings.published_path)

    page = Page(plain.settings.profile_page_path.read_text("utf-8"))

    assert [text for tag, text in page.texts if tag == "h2"] == SECTIONS
    assert published.facts["data_version"] in page.text
    assert set(published.read("profile")["run_id"]) == {published.facts["dagster_run_id"]}
    assert f"{published.facts['tables']['turnover']['rows']:,}" in page.text


def test_nothing_waits_for_the_page() -> None:
    graph = build_definitions(load_settings()).resolve_asset_graph()

    assert graph.get(common.PROFILE_PAGE).child_keys == set()
    assert common.PROFILE in graph.get(common.PUBLISHED).parent_keys
