"""Every control of every page of the web page, used at a desk and on a phone, with what must come of it.

What belongs here: that no control was left out, and what needs a site of its own. What does not: how controls
are found, and what each must do (browser/), and what holds for whole pages (test_dashboard_browser.py).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from turnover_assets.serving.dashboard import app as dashboard
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.api_factories import publish
from turnover_assets_tests.browser import forms, links, lists
from turnover_assets_tests.browser.controls import EXERCISES, controls
from turnover_assets_tests.browser.sites import (
    BROWSER_TESTS,
    DESK,
    PHONE,
    Site,
    american_site,
    barriers,
    chromium,
    home_site,
    locked_site,
    overflow,
    served,
    window,
)
from turnover_assets_tests.waiting import wait_until

pytestmark = BROWSER_TESTS
EXERCISED = (forms, links, lists)  # where it is said what each control must do
TEMPLATES = Path(dashboard.__file__).parent / "templates"
STANDARD = [
    "/",
    "/level?name=store",
    "/all",
    "/all?q=nobody",
    "/search?q=1",
    "/member?level=region&name=2",
    "/member?level=store&name=1",
    "/series?store=38&department=27",
    "/accuracy",
    "/quality",
    "/adjustments",
    "/what-if",
    "/downloads",
    "/about",
    "/nothing",
    "/adjustment?id=000000000001",
]
AMERICAN = ["/", "/all", "/all?page=2", "/member?level=dept&name=1", "/accuracy?level=store", "/what-if"]
FOOTER = ("footer select lang", "footer button Use")
SIZES = pytest.mark.parametrize("options", [DESK, PHONE], ids=["desk", "phone"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@SIZES
def test_every_control_of_every_page_does_what_it_says(
    browser: Browser, served_home: Settings, tmp_path: Path, options: dict[str, Any]
) -> None:
    sites = {"standard": tmp_path / "standard", "american": tmp_path / "american"}
    for folder in sites.values():
        folder.mkdir()
    EXERCISES.used.clear()
    with (
        home_site(served_home, sites["standard"]) as standard,
        american_site(sites["american"]) as american,
        window(browser, accept_downloads=True, **options) as page,
    ):
        unknown = EXERCISES.use_all(standard, page, STANDARD)
        unknown += EXERCISES.use_all(american, page, AMERICAN)

    assert not unknown, unknown
    assert not EXERCISES.known.keys() - EXERCISES.used  # nothing is kept for a control that is gone
    assert not _written_in_templates() - _named(EXERCISES.used)  # and no part of a page was left out


def _written_in_templates() -> set[str]:
    """Addresses that links of the templates name, and their fields; those of signing in are tested apart."""
    found: set[str] = set()
    for path in TEMPLATES.glob("*.jinja"):
        if path.name.startswith("login"):
            continue
        text = path.read_text("utf-8")
        found |= {*re.findall(r'<a\b[^>]*? href="(/[\w./-]*)', text)} - {"/login"}
        fields = re.findall(r"<(?:input|select)\b[^>]*>", text)
        found |= {
            name for each in fields if "hidden" not in each for name in re.findall(r' name="(\w+)"', each)
        }
    return found


def _named(used: set[str]) -> set[str]:
    return {word for name in used for word in name.split()}


# Signing in, and pages of errors ----------------------------------------------------------------------


@SIZES
def test_signing_in_and_out_and_in_again(
    browser: Browser, served_home: Settings, tmp_path: Path, options: dict[str, Any]
) -> None:
    with locked_site(served_home, tmp_path) as site, window(browser, **options) as page:
        page.goto(site.address + "/accuracy")
        assert {*controls(page)} == {
            "page link #main",
            "top link /",
            "password key",
            "button Sign in",
            *FOOTER,
        }
        assert page.evaluate("document.activeElement.id") == "key"
        assert overflow(page) <= 0
        assert barriers(page) == []
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        assert "not known" in page.locator("[role=alert]").inner_text()
        _sign_in(page, site)
        page.wait_for_url("**/accuracy")
        assert "Signed in as Grace" in page.locator("footer").inner_text()
        assert overflow(page) <= 0
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/login**")
        page.goto(site.address + "/what-if")  # which asks for the key, since the session is over
        _sign_in(page, site)
        page.wait_for_url("**/what-if")

        page.context.clear_cookies()
        page.get_by_label("Store", exact=True).fill("1")
        page.get_by_role("button", name="Ask").click()
        assert "Sign in first" in page.locator("h1").inner_text()
        assert not site.answers.questions
        page.locator("main").get_by_role("link", name="Sign in").click()
        page.wait_for_url("**/login")
        _sign_in(page, site)
        assert page.locator("h1").inner_text() == "Overview"


def _sign_in(page: Page, site: Site) -> None:
    page.get_by_label("Your key").fill(site.key)
    page.get_by_role("button", name="Sign in").click()


@SIZES
def test_a_page_without_forecasts_can_be_tried_again(
    browser: Browser, served_home: Settings, tmp_path: Path, options: dict[str, Any]
) -> None:
    settings = served_home.model_copy(update={"home": tmp_path})
    settings.published_path.mkdir()
    with served(settings) as address, window(browser, **options) as page:
        answer = page.goto(f"{address}/all?sort=name")
        assert answer is not None
        assert answer.status == 503
        assert overflow(page) <= 0
        assert barriers(page) == []
        publish(settings.published_path, current(served_home.published_path))

        def is_there() -> bool:
            page.get_by_role("link", name="Try again").click()
            return page.locator("h1").inner_text() == "All series"

        wait_until(is_there, "the page shows what is published")

        assert page.url == f"{address}/all?sort=name"
