"""What lists, charts, the map and what is folded must do."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from dateutil.parser import parse as parse_date
from playwright.sync_api import Locator, Page

from turnover_assets.serving.dashboard.lists import natural
from turnover_assets_tests.browser.controls import EXERCISES, Use, column
from turnover_assets_tests.browser.sites import (
    until,
)
from turnover_assets_tests.waiting import wait_until

SORTED_ANEW = """([id, at, before]) =>
  document.querySelectorAll(`#${id} thead th`)[at].getAttribute("aria-sort") !== before"""


# Lists ----------------------------------------------------------------------------------------------


@EXERCISES.of_all(
    "head link /level name sort", "head link /all sort", "head link #nested-list-1", "head link #series-list"
)
def sort_by_each_column(use: Use) -> None:
    """A column's head sorts by it, and the other way round the next time."""
    table = use.page.locator("table", has=use.control)
    table = use.page.locator(f"#{table.get_attribute('id')}")
    heads = table.locator("thead th")
    for position in range(heads.count()):
        if not heads.nth(position).locator("a").is_visible():
            continue  # left out on a phone, or not to be sorted by
        seen = []
        for _ in range(2):
            before = heads.nth(position).get_attribute("aria-sort")
            heads.nth(position).locator("a").click()
            until(use.page, SORTED_ANEW, [table.get_attribute("id"), position, before])
            order = heads.nth(position).get_attribute("aria-sort")
            assert table.locator("thead [aria-sort=ascending], thead [aria-sort=descending]").count() == 1
            values = table.locator(f"tbody tr > :nth-child({position + 1})").evaluate_all(
                "all => all.map(each => each.dataset.value ?? each.textContent.trim())"
            )
            keys = [natural(value) if position == 0 else (float(value),) for value in values if value]
            assert keys == sorted(keys, reverse=order == "descending"), (position, order)
            seen.append(order)
        assert {*seen} == {"ascending", "descending"}


@EXERCISES.of_all("search q", "button Search")
def search_in_the_list(use: Use) -> None:
    """What is typed leaves what has such a word, whether by a script in place or by the server."""
    page, field = use.page, use.page.get_by_label("Search in this list")
    before = page.locator("#list tbody tr").count()

    field.fill("store 38")
    page.locator("main").get_by_role("button", name="Search").click()
    until(page, "document.querySelector('[data-count]').textContent.includes('found')")

    titles = [title for title in column(page, 0) if title]
    assert titles
    assert not before or len(titles) < before
    assert all(title.startswith("Store 38") for title in titles)
    assert page.locator("[data-count]").inner_text() == f"{len(titles)} found"
    field = page.get_by_label("Search in this list")
    assert field.input_value() == "store 38"


@EXERCISES.of_all("top search q", "top button Search")
def search_everywhere(use: Use) -> None:
    """What is certainly meant is shown at once; all else that begins so is listed."""
    use.page.get_by_role("searchbox").first.fill("store 1")
    use.page.locator("header").get_by_role("button", name="Search").click()
    use.page.wait_for_url("**/member?level=store&name=1")
    assert use.heading == "Store 1"

    use.page.get_by_role("searchbox").first.fill("1")
    use.page.keyboard.press("Enter")
    use.page.wait_for_url("**/search?q=1")

    found = use.page.locator(".found a").all_inner_texts()
    assert found
    assert all(re.search(r"\b1", title) for title in found)
    assert use.page.get_by_role("searchbox").first.input_value() == "1"


# Charts and the map ---------------------------------------------------------------------------------


@EXERCISES.of_all("stop plot", "button N months", "button N year", "button N years", "button All")
def read_and_zoom_each_chart(use: Use) -> None:
    """Pointer, finger and arrow keys read it; buttons and dragging show a part of it."""
    charts = use.page.locator("figure[data-chart]")
    for number in range(charts.count()):
        chart = charts.nth(number)
        data = json.loads(chart.locator("script").text_content() or "")
        _read_by_pointer(use.page, chart, data)
        _show_by_buttons(use.page, chart, data)
        _zoom_by_dragging(use.page, chart, data)


def _read_by_pointer(page: Page, chart: Locator, data: dict[str, Any]) -> None:
    assert not chart.locator(".drawing").is_visible()
    over = chart.locator(".u-over")
    use = over.tap if page.evaluate("navigator.maxTouchPoints") else over.hover
    width = over.evaluate("each => each.clientWidth")
    told = []
    for share in (0.1, 0.95):
        use(position={"x": share * width, "y": 40})
        told.append(_told(chart))
    assert told[0] < told[1]
    assert {*told} <= {*map(_day, data["periods"])}
    ahead = [line["name"] for line in data["lines"] if line["key"] == "forecast"]
    assert all(name in chart.locator(".readout").inner_text() for name in ahead)


def _show_by_buttons(page: Page, chart: Locator, data: dict[str, Any]) -> None:
    buttons = chart.locator(".ranges button")
    newest = _day(data["cutoff"] or data["periods"][-1])
    for number in range(buttons.count()):
        buttons.nth(number).click()
        pressed = chart.locator(".ranges button[aria-pressed=true]").all_inner_texts()
        assert pressed == [buttons.nth(number).inner_text()]
        first, last = _extent(page, chart)
        days = {"6 months": 183, "1 year": 366, "2 years": 731}.get(pressed[0])
        expected = newest - timedelta(days=days) if days else _day(data["periods"][0])
        assert 0 <= (first - expected).days < 7
        assert last == _day(data["periods"][-1])


def _zoom_by_dragging(page: Page, chart: Locator, data: dict[str, Any]) -> None:
    over = chart.locator(".u-over")
    over.scroll_into_view_if_needed()
    box, before = over.bounding_box(), _extent(page, chart)
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 60, steps=4)
    page.mouse.up()
    if len(data["periods"]) < 8:  # a part without two periods has nothing to see
        assert _extent(page, chart) == before
    else:
        first, last = _extent(page, chart)
        assert before[0] < first < last < before[1]
        assert chart.locator(".ranges button[aria-pressed=true]").count() == 0
    over.dblclick(position={"x": 0.5 * box["width"], "y": 50})
    assert _extent(page, chart) == (_day(data["periods"][0]), _day(data["periods"][-1]))


def _extent(page: Page, chart: Locator) -> tuple[date, date]:
    """The first and the last period that a chart shows, as arrow keys reach them."""
    chart.locator(".plot").focus()
    found = []
    for key, beyond in (("Home", "ArrowLeft"), ("End", "ArrowRight")):
        page.keyboard.press(key)
        found.append(_told(chart))
        page.keyboard.press(beyond)
        assert _told(chart) == found[-1]
    page.keyboard.press("Escape")
    assert chart.locator(".readout b").count() == 0
    return found[0], found[1]


def _told(chart: Locator) -> date:
    return parse_date(chart.locator(".readout b").inner_text()).date()


def _day(seconds: float) -> date:
    return datetime.fromtimestamp(seconds, UTC).date()


# What is folded, and what is wider than the window ---------------------------------------------------


@EXERCISES.of(
    *(
        "summary The same as a table",
        "summary Every week",
        "summary why",
        "summary Every set that was published",
    ),
    *("summary What the figures mean", "summary N weaker ones", "summary Row by row"),
    "summary What is forecast, and how to read it",
)
def unfold(use: Use) -> None:
    """It folds and unfolds what stands below it, by pointer and by keyboard."""
    inside = use.control.locator("xpath=following-sibling::*[1]")
    seen = [inside.is_visible()]
    use.control.click()
    seen.append(inside.is_visible())
    use.page.keyboard.press("Enter")
    seen.append(inside.is_visible())
    assert seen in ([True, False, True], [False, True, False])


@EXERCISES.of_all("stop scroll")
def move_wide_tables(use: Use) -> None:
    """Each is named, and moved by the arrow keys where it is larger than its frame."""
    regions = use.page.locator(".scroll:visible")
    for number in range(regions.count()):
        region = regions.nth(number)
        assert region.get_attribute("aria-label")
        region.focus()
        for key, way, size in (("ArrowRight", "Left", "Width"), ("ArrowDown", "Top", "Height")):
            if region.evaluate(f"each => each.scroll{size} - each.client{size}") > 1:
                wait_until(
                    partial(_moved, use.page, key, way), f"{key} moves {use.page.url}", seconds=60, every=0.5
                )


def _moved(page: Page, key: str, way: str) -> bool:
    """Press a key until it moves what has the focus: a browser that has not drawn it yet ignores keys."""
    page.keyboard.press(key)
    return bool(page.evaluate(f"document.activeElement.scroll{way} > 0"))
