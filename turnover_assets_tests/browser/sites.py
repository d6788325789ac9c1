"""The web page for tests in a browser: sites that have every control, and windows onto them.

What belongs here: what is served, and the browser. What does not: what is done in it
(test_dashboard_browser.py, test_dashboard_controls.py).
"""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from turnover_assets.serving.dashboard.app import create_app
from turnover_assets.serving.dashboard.what_if import WhatIf
from turnover_assets.serving.what_if import answer_question
from turnover_assets.settings import Settings
from turnover_assets.storage.api_keys import KeyStore
from turnover_assets.storage.snapshots import Snapshot, current
from turnover_assets.storage.workbook_files import write_level
from turnover_assets_tests.api_factories import publish
from turnover_assets_tests.dashboard_factories import small_snapshot
from turnover_assets_tests.factories import settings_for, walmart_like
from turnover_assets_tests.test_dashboard_decisions import Doubles, more_adjustments

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
BROWSER_TESTS = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="there is no chromium (Debian's package)"),
]
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
DARK: dict[str, Any] = {**DESK, "color_scheme": "dark"}
PATIENCE = 60_000  # milliseconds, on a busy machine
MANY_STORES, MANY_DEPARTMENTS = 105, 4  # more series and members than one page lists


@dataclass(frozen=True)
class Site:
    """A served home."""

    settings: Settings
    address: str
    answers: Doubles
    key: str = ""


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


@contextmanager
def home_site(made: Settings, folder: Path) -> Iterator[Site]:
    """A home of the standard panel with something in every part of every page."""
    settings = made.model_copy(update={"home": folder})
    settings.published_path.mkdir()
    source = current(made.published_path)
    snapshot = publish(settings.published_path, source, _troubles(source))
    write_level(settings.workbooks_path, snapshot, settings.panel_spec, "region")
    answers = Doubles()
    with served(settings, answers) as address:
        yield Site(settings, address, answers)


def _troubles(source: Snapshot) -> dict[str, pd.DataFrame]:
    """More of what is wrong with the data than a page shows at once."""
    finding, keys = source.read("findings").head(1), source.read("forecasts")[["store", "department"]]
    gone = keys.drop_duplicates().head(3).assign(cutoff=source.facts["cutoff"], last_reported="2024-06-01")
    dated = {name: pd.to_datetime(gone[name]).dt.date for name in ("cutoff", "last_reported")}
    missing = pd.concat([gone.assign(**dated)] * 40, ignore_index=True)
    findings = [finding.assign(finding_id=f"{number:012x}", strength=9.0 - number) for number in range(15)]
    return {
        "adjustments": more_adjustments(source.read("adjustments")),
        "missing_series": missing[["cutoff", "store", "department", "last_reported"]],
        "findings": pd.concat(findings, ignore_index=True),
        "monitored_accuracy": source.read("monitored_accuracy").replace({"member": {"1": "2"}}),
    }


@contextmanager
def american_site(folder: Path) -> Iterator[Site]:
    """Another retailer, with plans, with attributes of each type, and with more series than a page lists."""
    settings, panel = settings_for(folder), walmart_like()
    settings.__dict__["panel_spec"] = panel
    stores = range(1, MANY_STORES + 1)
    series = [{"store": store, "dept": dept} for store in stores for dept in range(1, MANY_DEPARTMENTS + 1)]
    known = {"store": stores, "kind": ["AB"[s % 2] for s in stores], "size": [10.0 + 0.5 * s for s in stores]}
    measured = pd.concat([_measures("total", ""), *(_measures("store", str(store)) for store in stores)])
    others = {"measures": measured.assign(cutoff=date(2018, 9, 8))}
    small_snapshot(settings.published_path, panel, series, {"stores": pd.DataFrame(known)}, others)
    answers = Doubles()
    with served(settings, answers) as address:
        yield Site(settings, address, answers)


def _measures(level: str, member: str) -> pd.DataFrame:
    """How a member's forecasts turned out."""
    values = {
        "wape": 0.2,
        "wape_seasonal_naive": 0.3,
        "wape_promised": 0.2,
        "bias": -0.01,
        "coverage_80": 0.8,
    }
    return pd.DataFrame({"level": level, "member": member, "measure": [*values], "value": [*values.values()]})


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's browser, without a screen."""
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


@contextmanager
def locked_site(made: Settings, folder: Path) -> Iterator[Site]:
    """A home that is read with a key."""
    settings = made.model_copy(update={"home": folder})
    settings.published_path.mkdir()
    publish(settings.published_path, current(made.published_path))
    secret = KeyStore(settings.keys_path).create("Grace", ("read", "what-if"), datetime.now(UTC)).secret
    answers = Doubles()
    with served(settings, answers) as address:
        yield Site(settings, address, answers, secret)


def until(page: Page, condition: str, given: Any = None) -> None:
    """Wait for a condition; the page's policy forbids the way that Playwright has for it."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(condition, given):
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)
