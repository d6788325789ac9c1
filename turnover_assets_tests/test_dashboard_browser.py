"""The web page in a browser: whole pages at a desk, on a phone, in the dark, by keyboard, for everybody."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from turnover_assets.settings import Settings
from turnover_assets_tests.browser.controls import UNFOLD
from turnover_assets_tests.browser.sites import (
    BROWSER_TESTS,
    DARK,
    DESK,
    PHONE,
    Site,
    american_site,
    barriers,
    chromium,
    home_site,
    overflow,
    window,
)

pytestmark = BROWSER_TESTS
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
AMERICAN = ("/all?page=2", "/what-if", "/accuracy?level=store")


@pytest.fixture(scope="module")
def site(served_home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with home_site(served_home, tmp_path_factory.mktemp("browsed")) as found:
        yield found


@pytest.fixture(scope="module")
def american(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with american_site(tmp_path_factory.mktemp("american")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("kind", ["desk", "phone", "dark"])
def test_every_page_is_accessible_and_fits_its_window(
    browser: Browser, site: Site, american: Site, kind: str
) -> None:
    options = {"desk": DESK, "phone": PHONE, "dark": DARK}[kind]
    with window(browser, **options) as page:
        found = {}
        for address in [site.address + path for path in PAGES.values()] + [
            american.address + path for path in AMERICAN
        ]:
            answer = page.goto(address)
            assert answer is not None
            assert answer.status == (404 if address.endswith(PAGES["error"]) else 200), address
            assert overflow(page) <= 0, address
            page.evaluate(UNFOLD)
            found[address] = barriers(page)

    assert not {name: grave for name, grave in found.items() if grave}


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


def test_all_is_there_without_scripts(browser: Browser, site: Site) -> None:
    with window(browser, java_script_enabled=False, **PHONE) as page:
        page.goto(site.address + PAGES["series"])
        assert page.locator(".drawing .line.forecast").is_visible()
        page.locator("summary", has_text="The same as a table").click()
        assert page.locator("td.n:visible").count() > 20
        page.goto(site.address + "/level?name=store")
        page.get_by_role("link", name="Name").click()
        page.wait_for_url("**sort=name**")
        page.get_by_label("Search in this list").fill("1")
        page.get_by_role("button", name="Search").last.click()
        page.wait_for_url("**q=1**")
