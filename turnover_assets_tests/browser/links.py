"""What links and downloads of the web page must do."""

import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import openpyxl
import pandas as pd
import pytest
from playwright.sync_api import Page

from turnover_assets.serving.dashboard.members import member_title, series_title
from turnover_assets.storage.snapshots import Snapshot, current
from turnover_assets_tests.browser.controls import EXERCISES, UNFOLD, Use, column
from turnover_assets_tests.workbook_files import grid

HEADINGS = {
    "/": "Overview",
    "/all": "All series",
    "/accuracy": "How good the forecasts are",
    "/quality": "Data quality",
    "/adjustments": "Adjustments",
    "/what-if": "What if",
    "/downloads": "Downloads",
    "/about": "About these forecasts",
}
IN_A_ROW = 9  # downloads of one visit to a page, of which Chromium asks about the eleventh


# Links ----------------------------------------------------------------------------------------------


@EXERCISES.of(
    *(f"top link {path}" for path in ("/", "/all", "/accuracy", "/quality", "/adjustments", "/what-if")),
    *("top link /level name", "top link /downloads", "top link /about"),
    *(
        "link /",
        "link /all",
        "link /quality",
        "link /adjustments",
        "link /adjustments status",
        "link /downloads",
    ),
    *(
        "link /level name",
        "link /member level name",
        "link /series store department",
        "link /series store dept",
    ),
    *("link /accuracy level", "link /adjustment id", "link /all q", "map link /member level name"),
)
def follow(use: Use) -> None:
    """It leads to the page that it names, which is what it says."""
    target, words = use.target, use.control.get_attribute("aria-label") or use.control.inner_text()

    with use.page.expect_navigation() as going:
        use.control.click()

    assert going.value is not None
    assert going.value.status == 200
    assert use.page.url == target
    path, given = urlsplit(target).path, dict(parse_qsl(urlsplit(target).query))
    assert use.heading == _heading(use, path, given, words)
    if use.name.startswith("top") and words in HEADINGS:
        assert use.page.locator("nav [aria-current=page]").inner_text() == words
    if path == "/adjustments" and given:
        assert {*use.page.locator("td .status").all_inner_texts()} == {given["status"]}
    if path == "/accuracy" and given:
        titled = use.page.locator("section[aria-labelledby=members] h2").inner_text()
        assert titled == f"By {given['level']}"
    if "q" in given:
        assert use.page.get_by_label("Search in this list").input_value() == given["q"]


def _heading(use: Use, path: str, given: dict[str, str], words: str) -> str:
    """What the page at an address is called; where it is of something, the link says so, too."""
    if path == "/level":
        return f"By {given['name']}"
    if path == "/member":
        found = member_title(given["level"], given["name"])
    elif path == "/series":
        found = series_title(use.site.settings.panel_spec, given)
    elif path == "/adjustment":
        table = current(use.site.settings.published_path).read("adjustments").set_index("adjustment_id")
        selector = str(table.loc[given["id"], "selector"])
        assert selector.lower() in words.lower()
        return f"Adjustment: {selector[:1].upper()}{selector[1:]}"
    else:
        return HEADINGS[path]
    assert found in words
    return found


@EXERCISES.of("page link #main", "link #ranked")
def jump(use: Use) -> None:
    """It leads to a part of the page, where the tab key goes on."""
    place = urlsplit(use.target).fragment

    use.control.focus()
    use.page.keyboard.press("Enter")

    use.page.wait_for_url(lambda address: urlsplit(address).fragment == place)
    use.page.keyboard.press("Tab")
    inside = f"document.getElementById('{place}').contains(document.activeElement)"
    assert use.page.evaluate(inside)
    assert use.page.locator(f"#{place}").evaluate("each => each.getBoundingClientRect().top < innerHeight")


@EXERCISES.of_all("pages link /all page", "pages link /all")
def turn_the_page(use: Use) -> None:
    """Next and before lead through a list that has more than a page, without leaving anything out."""
    if "page=2" in use.page.url:
        use.page.get_by_role("link", name="Before", exact=True).click()
        use.page.wait_for_url(lambda address: "page=2" not in address)
    titles = column(use.page, 0)
    use.page.get_by_role("link", name="Next", exact=True).click()
    use.page.wait_for_url("**page=2**")

    titles += column(use.page, 0)

    forecasts = current(use.site.settings.published_path).read("forecasts")
    series = forecasts[["store", "dept"]].drop_duplicates().to_dict("records")
    assert sorted(titles) == sorted(series_title(use.site.settings.panel_spec, each) for each in series)
    assert use.page.get_by_text("Page 2 of 2").is_visible()
    assert use.page.get_by_role("link", name="Next", exact=True).count() == 0


# Downloads ------------------------------------------------------------------------------------------


@EXERCISES.of_all("link /download table format", "link /download table")
def download_tables(use: Use) -> None:
    """Each gives its whole table, as the kind of file that it says."""
    snapshot = current(use.site.settings.published_path)
    links = use.page.locator("main a[href^='/download?']")
    given = [
        dict(parse_qsl(urlsplit(str(each)).query))
        for each in links.evaluate_all("all => all.map(a => a.href)")
    ]

    for number, asked in enumerate(given):
        if number % IN_A_ROW == 0:
            use.page.goto(use.page.url)
            use.page.evaluate(UNFOLD)
        kind = asked.get("format", "csv")
        name, content = _downloaded(use.page, links.nth(number))
        assert name == f"{asked['table']}_{snapshot.facts['cutoff']}.{kind}"
        frame = pd.read_csv(content) if kind == "csv" else pd.read_parquet(content)
        published = snapshot.read(asked["table"])
        assert list(frame) == list(published)
        assert len(frame) == len(published) == snapshot.facts["tables"][asked["table"]]["rows"]
    if use.name.endswith("format"):
        both = {(asked["table"], asked["format"]) for asked in given}
        assert both == {(table, kind) for table in snapshot.facts["tables"] for kind in ("csv", "parquet")}


@EXERCISES.of_all("link /workbook name")
def download_workbooks(use: Use) -> None:
    """Each is a workbook of its region, with the published forecasts."""
    links = use.page.locator("main a[href^='/workbook?']")
    snapshot = current(use.site.settings.published_path)
    forecasts = snapshot.read("forecasts").merge(snapshot.read("stores")[["store", "region"]], on="store")
    by_region = dict(list(forecasts.groupby("region")))
    assert links.count() == len(by_region)

    for number, region in enumerate(sorted(by_region)):
        name, content = _downloaded(use.page, links.nth(number))
        assert name.startswith(f"region-{region}_")
        book = openpyxl.load_workbook(content, data_only=True)
        assert str(book["Summary"]["A1"].value).startswith(f"Region {region}: ")
        details = grid(book["Details"], "Ahead")
        assert len(details) == len(by_region[region])
        assert details["Forecast"].sum() == pytest.approx(by_region[region]["forecast"].sum())


@EXERCISES.of("link /member.csv level", "link /member.csv level name", "link /series.csv store department")
def download_history(use: Use) -> None:
    """It gives what the page shows: every period, and the forecasts that were published."""
    given = dict(parse_qsl(urlsplit(use.target).query))
    words = re.search(r"all ([\d,]+) weeks", use.control.inner_text())
    heads = use.page.locator("details").first.locator("thead th").all_inner_texts()
    shown = column(use.page, heads.index("Forecast"), "details tbody tr.coming")[-1]

    name, content = _downloaded(use.page, use.control)

    frame = pd.read_csv(content)
    assert name.endswith(".csv")
    assert words is not None
    assert len(frame) == int(words.group(1).replace(",", ""))
    forecast = frame["forecast"].dropna().tolist()
    assert forecast == pytest.approx(_published(current(use.site.settings.published_path), given))
    assert _amount(shown) == pytest.approx(forecast[0], abs=0.5)


def _published(snapshot: Snapshot, given: dict[str, str]) -> list[float]:
    """The forecasts of a series or a member, as they were published."""
    if "level" in given:
        rows = snapshot.read("aggregates").query(
            "level == @given['level'] and member == @given.get('name', '')"
        )
    else:
        rows = snapshot.read("forecasts")
        for key, value in given.items():
            rows = rows[rows[key].astype(str) == value]
    return [float(value) for value in rows.sort_values("horizon")["forecast"]]


def _amount(text: str) -> float:
    """An amount as it is written in English."""
    return float(re.sub(r"[^\d.]", "", text))


def _downloaded(page: Page, link: Any) -> tuple[str, io.BytesIO]:
    with page.expect_download() as download:
        link.click()
    return download.value.suggested_filename, io.BytesIO(Path(download.value.path()).read_bytes())
