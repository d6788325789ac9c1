"""How fast the web page is, seen from a browser: first paint, largest paint, how long an interaction takes.

What belongs here: medians for every page of a home, measured with Chromium's own clock. What does not: load
by many readers at once (benchmarks/serving.py).

Each page is opened as by somebody who comes for the first time (a new browser context, nothing cached) and
again with the files kept. The interaction of a page is what a reader does there most: reading a chart,
sorting, searching, opening the table; its time is from the key or click to the next frame painted. The server
runs in a process of its own on this machine. Without Chromium (Debian's package) the script says so and ends
with exit code 2.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from urllib.request import urlopen

from playwright.sync_api import Browser, Page, sync_playwright

from turnover_assets.serving.dashboard.members import member_address, series_address
from turnover_assets.serving.dashboard.shown import Shown
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.snapshots import lease
from turnover_assets_tests.factories import free_port

CHROMIUM = shutil.which("chromium")
FIRST_PAINT, INTERACTION = 1.5, 0.3  # seconds that are promised
COLUMNS = {
    "first": "first paint ms",
    "largest": "largest paint ms",
    "load": "loaded ms",
    "again": "again, first paint ms",
    "act": "interaction ms",
    "kilobytes": "kB",
}
PAINTS = """() => new Promise((done) => {
  const told = {};
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => { told.largest = entry.startTime; }))
    .observe({ type: "largest-contentful-paint", buffered: true });
  const look = () => {
    const first = performance.getEntriesByName("first-contentful-paint")[0];
    if (!first) { setTimeout(look, 20); return; }
    setTimeout(() => done({ first: first.startTime, largest: told.largest || first.startTime,
      load: performance.getEntriesByType("navigation")[0].loadEventEnd,
      kilobytes: performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
        .reduce((sum, entry) => sum + entry.transferSize / 1024, 0) }), 100);
  };
  look();
})"""
# Does something, and tells the milliseconds until the frame after it was painted.
UNTIL_PAINTED = """(act) => new Promise((done) => {
  const began = performance.now();
  (0, eval)(act);
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - began), 0));
})"""
READ_CHART = "document.querySelector('.plot').dispatchEvent(new KeyboardEvent('keydown', {key: 'End'}))"
ZOOM = "[...document.querySelectorAll('.ranges button')].at(-1).click()"
SORT = "document.querySelector('#list thead th a').click()"
SEARCH = (
    "(() => { const box = document.querySelector('[data-filter]'); if (!box) return; box.value = '1'; "
    "box.dispatchEvent(new Event('input')) })()"
)
UNFOLD = "document.querySelectorAll('details').forEach((each) => { each.open = true })"
ACTS: dict[str, Sequence[str]] = {
    "overview": (READ_CHART, ZOOM, UNFOLD),
    "member": (READ_CHART, ZOOM, UNFOLD),
    "series": (READ_CHART, ZOOM, UNFOLD),
    "list": (SORT, SEARCH),
    "adjustment": (READ_CHART,),
    "accuracy": (UNFOLD,),
    "quality": (UNFOLD,),
}


def main() -> int:
    if CHROMIUM is None:
        print("There is no chromium; install Debian's package.", file=sys.stderr)
        return 2
    chosen = arguments()
    settings = load_settings()
    pages, port = addresses(settings), free_port()
    command = [sys.executable, "-m", "turnover_assets.cli", "dashboard", "--port", str(port)]
    server = subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            slow = report(browser, f"http://127.0.0.1:{port}", pages, chosen.rounds)
    finally:
        server.terminate()
        server.wait(30)
    return 1 if slow else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each page is opened")
    return parser.parse_args()


def addresses(settings: Settings) -> dict[str, str]:
    """Every page, with the largest member and series where it is of one."""
    panel = settings.panel_spec
    with lease(settings.published_path) as snapshot:
        shown = Shown(snapshot, settings)
        longest = max(panel.level_names, key=lambda level: len(shown.members[level]))
        largest = next(iter(shown.members[longest].values()))
        row = shown.view.records('SELECT * FROM "all series" ORDER BY forecast DESC NULLS LAST LIMIT 1')[0]
        adjusted = shown.view.records("SELECT adjustment_id FROM adjustments ORDER BY rows DESC LIMIT 1")
        shown.close()
    found = {
        "overview": "/",
        "list": f"/level?name={longest}",
        "all": "/all",
        "search": "/search?q=1",
        "member": member_address(longest, largest.name),
        "series": series_address(panel, row),
        "accuracy": "/accuracy",
        "quality": "/quality",
        "adjustments": "/adjustments",
        "what-if": "/what-if",
        "downloads": "/downloads",
        "about": "/about",
    }
    if adjusted:
        found["adjustment"] = f"/adjustment?id={adjusted[0]['adjustment_id']}"
    return found


def wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz"):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the web page does not answer")


def report(browser: Browser, address: str, pages: dict[str, str], rounds: int) -> bool:
    """Print a table of medians; gives whether anything is slower than promised."""
    print(f"| page | {' | '.join(COLUMNS.values())} |")
    print(f"|---|{'---:|' * len(COLUMNS)}")
    slow = False
    for name, path in pages.items():
        found = [visit(browser, address + path, ACTS.get(name, ())) for _ in range(rounds)]
        middle = {key: statistics.median(each[key] for each in found) for key in COLUMNS}
        slow |= middle["first"] > 1000 * FIRST_PAINT or middle["act"] > 1000 * INTERACTION
        print(f"| {name} | {' | '.join(f'{value:.0f}' for value in middle.values())} |")
    print(f"\nMedians of {rounds}; the interaction is the slowest one. Slower than promised: {slow}.")
    return slow


def visit(browser: Browser, address: str, acts: Sequence[str]) -> dict[str, float]:
    context = browser.new_context(bypass_csp=True)  # for eval by this script; pages do without
    page = context.new_page()
    try:
        page.goto(address)
        paints = page.evaluate(PAINTS)
        slowest = max((page.evaluate(UNTIL_PAINTED, act) for act in acts), default=0.0)
        return {**paints, "act": slowest, "again": again(page, address)}
    finally:
        context.close()


def again(page: Page, address: str) -> float:
    page.goto(address)
    return float(page.evaluate(PAINTS)["first"])


if __name__ == "__main__":
    raise SystemExit(main())
