"""The web page in a browser: every page and control, at a desk, on a phone, by keyboard, for everybody."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from turnover_assets.serving.dashboard.app import create_app
from turnover_assets.serving.dashboard.what_if import WhatIf
from turnover_assets.serving.what_if import answer_question
from turnover_assets.settings import Settings
from turnover_assets.storage.api_keys import KeyStore
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.api_factories import publish
from turnover_assets_tests.test_dashboard_decisions import Doubles, detected, entries, more_adjustments

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="there is no chromium (Debian's package)"),
]
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
DARK: dict[str, Any] = {**DESK, "color_scheme": "dark"}
PAGES = {
    "overview": "/",
    "level": "/level?name=store",
    "all": "/all",
    "search": "/search?q=1",
    "member": "/member?level=region&name=2",
    "series": "/series?store=1&department=11",
    "accuracy": "/accuracy",
    "quality": "/quality",
    "adjustments": "/adjustments",
    "adjustment": "/adjustment?id=000000000001",
    "what-if": "/what-if",
    "downloads": "/downloads",
    "about": "/about",
    "error": "/nothing",
}
VALUES = "cells => cells.map((cell) => cell.dataset.value)"
PATIENCE = 60_000  # milliseconds, on a busy machine


@dataclass(frozen=True)
class Site:
    """A served home."""

    settings: Settings
    address: str


@contextmanager
def served(settings: Settings, what_if: WhatIf = answer_question) -> Iterator[str]:
    """The web page, answering on loopback."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    app = create_app(settings, what_if)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


@pytest.fixture(scope="module")
def site(served_home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = served_home.model_copy(update={"home": tmp_path_factory.mktemp("browsed")})
    settings.published_path.mkdir()
    source = current(served_home.published_path)
    publish(settings.published_path, source, {"adjustments": more_adjustments(source.read("adjustments"))})
    with served(settings, Doubles()) as address:
        yield Site(settings, address)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@contextmanager
def window(browser: Browser, **options: Any) -> Iterator[Page]:
    """A window whose page must do without an error, and without anything that its policy forbids."""
    context: BrowserContext = browser.new_context(locale="en-GB", **options)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if "Content Security" in line.text else None)
    try:
        yield page
    finally:
        context.close()
    assert not wrong


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def barriers(page: Page) -> list[tuple[str, str]]:
    """What axe finds serious: the rule, and where it is broken."""
    violations = Axe().run(page).response["violations"]
    grave = [v for v in violations if v["impact"] in ("serious", "critical")]
    return [(v["id"], v["nodes"][0]["html"][:200]) for v in grave]


@pytest.mark.parametrize("kind", ["desk", "phone", "dark"])
def test_every_page_is_accessible_and_fits_its_window(browser: Browser, site: Site, kind: str) -> None:
    options = {"desk": DESK, "phone": PHONE, "dark": DARK}[kind]
    with window(browser, **options) as page:
        found = {}
        for name, address in PAGES.items():
            answer = page.goto(site.address + address)
            assert answer is not None
            assert answer.status == (404 if name == "error" else 200), name
            assert overflow(page) <= 0, name
            page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
            found[name] = barriers(page)

    assert not {name: grave for name, grave in found.items() if grave}


@pytest.mark.parametrize("options", [DESK, PHONE], ids=["desk", "phone"])
def test_charts_answer_the_pointer_the_keyboard_and_the_buttons(
    browser: Browser, site: Site, options: dict[str, Any]
) -> None:
    with window(browser, **options) as page:
        page.goto(site.address + "/")
        chart = page.locator("figure[data-chart=total]")
        assert chart.locator("canvas").is_visible()
        assert not chart.locator(".drawing").is_visible()
        told = chart.locator(".readout")
        chart.locator(".u-over").hover(position={"x": 150, "y": 100})
        by_pointer = told.inner_text()
        assert "Reported" in by_pointer

        plot = chart.locator(".plot")
        plot.focus()
        page.keyboard.press("End")
        assert "Forecast" in told.inner_text()
        assert "80% range" in told.inner_text()
        at_end = told.inner_text()
        page.keyboard.press("ArrowLeft")
        assert told.inner_text() != at_end
        page.keyboard.press("Escape")

        buttons = chart.locator(".ranges button")
        for number in range(buttons.count()):
            buttons.nth(number).click()
            assert buttons.nth(number).get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("options", [DESK, PHONE], ids=["desk", "phone"])
def test_lists_are_sorted_and_searched_in_place(
    browser: Browser, site: Site, options: dict[str, Any]
) -> None:
    with window(browser, **options) as page:
        page.goto(site.address + "/level?name=store")
        address = page.url
        names = "#list tbody tr:visible th"
        before = page.locator(names).all_inner_texts()

        page.get_by_role("link", name="Name").click()
        by_name = page.locator(names).all_inner_texts()
        assert by_name == sorted(before, key=lambda name: int(name.split()[1]))
        page.get_by_role("link", name="Against last year").click()
        values = page.locator("#list tbody tr td:last-child").evaluate_all(VALUES)
        numbers = [float(value) for value in values if value]
        assert numbers == sorted(numbers, reverse=True)
        page.get_by_role("link", name="Against last year").click()
        header = page.locator("th[aria-sort]")
        assert header.get_attribute("aria-sort") == "ascending"

        page.get_by_label("Search in this list").fill(f"store {by_name[0].split()[1]}")
        left = page.locator(names).all_inner_texts()
        assert left
        assert all(name.split()[1].startswith(by_name[0].split()[1]) for name in left)
        assert "found" in page.locator("[data-count]").inner_text()
        assert page.url == address


def test_the_whole_page_can_be_used_by_keyboard_alone(browser: Browser, site: Site) -> None:
    with window(browser, **DESK) as page:
        page.goto(site.address + "/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('main') !== null")

        places = page.locator("svg[data-map] a")
        places.first.focus()
        first = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert first == page.locator(".map .readout").inner_text()
        for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
            page.keyboard.press(key)
        page.keyboard.press("Tab")  # one stop for the whole map
        assert page.evaluate("document.activeElement.closest('svg[data-map]') === null")

        page.get_by_role("searchbox").first.focus()
        page.keyboard.type("region 2")
        page.keyboard.press("Enter")
        page.wait_for_url("**/member**")
        assert "Region 2" in page.locator("h1").inner_text()


def test_tabbing_reaches_the_end_of_every_page_without_a_trap(browser: Browser, site: Site) -> None:
    with window(browser, **DESK) as page:
        for name in ("overview", "series", "adjustment", "what-if"):
            page.goto(site.address + PAGES[name])
            page.wait_for_load_state("load")
            seen = set()
            for _ in range(400):
                page.keyboard.press("Tab")
                place = page.evaluate(
                    "(() => { const a = document.activeElement; return a === document.body ? -1 : "
                    "[...document.querySelectorAll('*')].indexOf(a) })()"
                )
                if place == -1 or place in seen:
                    break
                seen.add(place)
            last = page.evaluate(
                "(() => { const last = [...document.querySelectorAll('footer button')].at(-1); "
                "return [...document.querySelectorAll('*')].indexOf(last) })()"
            )
            assert last in seen, name


def test_a_steward_decides_in_the_page(browser: Browser, site: Site) -> None:
    with window(browser, **PHONE) as page:
        page.goto(site.address + "/adjustments?status=proposed")
        page.locator("tbody a").first.click()
        page.get_by_text("the reports are right").click()
        page.get_by_role("button", name="Enter the decision").click()
        assert "/adjustments?entered" not in page.url  # the browser asks for what is missing
        page.get_by_label("Why?").fill("the shop was rebuilt")
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name="Enter the decision").click()
        page.wait_for_url("**/adjustments?entered=*")
        assert "takes effect with the next run" in page.locator("main").inner_text()

    assert [entry["who"] for entry in entries(site.settings, "veto")] == ["Ada"]
    assert len(detected(site.settings)) > 1


@pytest.mark.parametrize("options", [DESK, PHONE], ids=["desk", "phone"])
def test_every_other_control_does_what_it_says(browser: Browser, site: Site, options: dict[str, Any]) -> None:
    with window(browser, accept_downloads=True, **options) as page:
        page.goto(site.address + "/about")
        page.get_by_label("Numbers and dates").select_option("de")  # taken at once
        page.wait_for_url("**lang=de**")
        page.goto(site.address + "/accuracy")
        assert "," in page.locator(".tile .figure").first.inner_text()
        page.get_by_role("link", name="Store", exact=True).last.click()
        page.wait_for_url("**level=store**")
        page.goto(site.address + PAGES["series"])
        page.locator("summary", has_text="The same as a table").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="as CSV").click()
        assert download.value.suggested_filename == "Store_1_department_11.csv"
        page.goto(site.address + "/downloads")
        with page.expect_download() as download:
            page.get_by_role("link", name="forecasts as Parquet", exact=True).click()
        assert download.value.suggested_filename.endswith(".parquet")
        page.goto(site.address + "/quality")
        page.locator("summary").first.click()
        page.goto(site.address + "/what-if")
        assert page.get_by_label("in % of what was reported").is_visible()
        page.get_by_text("Something new.").click()
        assert not page.get_by_label("in % of what was reported").is_visible()
        assert page.get_by_label("Usual amount of a week").is_visible()
        page.get_by_text("What there is.").click()
        page.get_by_label("Store", exact=True).fill("1")
        page.get_by_role("button", name="Ask").click()
        assert "The model has never seen this." in page.locator("main").inner_text()
        assert page.locator("figure[data-chart=what-if] canvas").is_visible()
        assert overflow(page) <= 0
        assert barriers(page) == []


@pytest.mark.parametrize("options", [DESK, PHONE], ids=["desk", "phone"])
def test_adjustments_are_filtered_members_downloaded_and_something_new_described(
    browser: Browser, site: Site, options: dict[str, Any]
) -> None:
    with window(browser, accept_downloads=True, **options) as page:
        page.goto(site.address + "/adjustments")
        everything = page.locator("tbody tr").count()
        page.get_by_role("link", name="proposed").first.click()
        page.wait_for_url("**status=proposed**")
        assert 0 < page.locator("tbody tr").count() < everything

        page.goto(site.address + PAGES["member"])
        page.locator("summary", has_text="The same as a table").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="as CSV").click()
        assert download.value.suggested_filename.endswith(".csv")

        page.goto(site.address + "/what-if")
        page.get_by_text("Something new.").click()
        page.get_by_label("Store", exact=True).fill("901")
        page.get_by_label("Similar to which store").fill("1")
        page.get_by_label("Usual amount of a week").fill("5000")
        page.get_by_role("button", name="Ask").click()
        assert page.locator("figure[data-chart=what-if] canvas").is_visible()
        assert page.get_by_label("Similar to which store").input_value() == "1"
        assert page.get_by_label("Usual amount of a week").input_value() == "5000"


def test_all_is_there_without_scripts(browser: Browser, site: Site) -> None:
    with window(browser, java_script_enabled=False, **PHONE) as page:
        page.goto(site.address + PAGES["series"])
        assert page.locator(".drawing .line.forecast").is_visible()
        page.locator("summary", has_text="The same as a table").click()
        assert page.locator("td.n:visible").count() > 20
        page.goto(site.address + "/level?name=store")
        page.get_by_role("link", name="Name").click()
        assert "sort=name" in page.url
        page.get_by_label("Search in this list").fill("1")
        page.get_by_role("button", name="Search").last.click()
        assert "q=1" in page.url


def test_signing_in_and_out(browser: Browser, served_home: Settings, tmp_path: Path) -> None:
    settings = served_home.model_copy(update={"home": tmp_path})
    settings.published_path.mkdir()
    publish(settings.published_path, current(served_home.published_path))
    key = KeyStore(settings.keys_path).create("Grace", ("read",), datetime.now(UTC)).secret
    with served(settings) as address, window(browser, **PHONE) as page:
        page.goto(address + "/accuracy")
        assert page.evaluate("document.activeElement.id") == "key"
        assert overflow(page) <= 0
        assert barriers(page) == []
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        assert "not known" in page.locator("[role=alert]").inner_text()
        page.get_by_label("Your key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/accuracy")
        assert overflow(page) <= 0
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/login**")
