"""What-if questions on the case study: how long they take, and how good forecasts of new series are.

What belongs here: questions to the served snapshot of a published home, each timed by itself; and series that
are forecast as if their store did not exist, by the other stores, beside their own forecasts and what was
reported afterwards. What does not: look-ups (serving.py).

The home must be the case study's with only its history landed, so that the weekly files are outcomes that
nothing has seen. The real data stand in TURNOVER_TEST_DATA (default ../shared/data beside the repository) and
are not part of the project.
"""

import argparse
import os
import random
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from turnover_assets.core.metrics import wape
from turnover_assets.core.what_if.newcomers import Placed, peers_of, place, with_peers_bounds
from turnover_assets.core.what_if.overlay import Overlay
from turnover_assets.core.what_if.question import Newcomer
from turnover_assets.core.what_if.settling import settle_in
from turnover_assets.serving.champion import Champions, InUse
from turnover_assets.serving.served import Served
from turnover_assets.serving.view import Stop
from turnover_assets.serving.what_if import answer_question
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.snapshots import lease

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TURNOVER_TEST_DATA", REPOSITORY.parent / "shared" / "data")) / "decathlon"
NAMES = {"but_num_business_unit": "store", "dpt_num_department": "department", "day_id": "week"}
ON = ["store", "department", "week"]
FIRST_NEW = 900_000  # numbers that no store has


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, required=True, help="a published home of the case study")
    parser.add_argument("--questions", type=int, default=15, help="of each kind; the median counts")
    parser.add_argument("--newcomers", type=int, default=400, help="series to leave out, each by itself")
    arguments = parser.parse_args()
    settings = load_settings(home=arguments.home)
    with serving(settings) as served:
        assert served.champion is not None
        print(f"{served.origin.snapshot}, load average {os.getloadavg()[0]:.1f}")
        for kind, seconds in timed(served, arguments.questions):
            print(f"{kind:38} p50 {statistics.median(seconds):5.2f} s, most {max(seconds):5.2f} s")
        outcomes = read_outcomes()
        for is_given in (True, False):
            print(score(served, served.champion, outcomes, arguments.newcomers, is_given=is_given))


@contextmanager
def serving(settings: Settings) -> Iterator[Served]:
    with ExitStack() as leaving:
        snapshot = leaving.enter_context(lease(settings.published_path))
        served = leaving.enter_context(closing(Served(snapshot, settings)))
        served.champion = Champions(settings.panel_spec).take(snapshot)
        yield served


def timed(served: Served, count: int) -> Iterator[tuple[str, list[float]]]:
    """Seconds of each question, by its kind; another series each time."""
    table = served.view.arrow("SELECT DISTINCT store, department FROM forecasts ORDER BY ALL").to_pylist()
    chosen = random.Random(1).sample(table, count)
    history = {"factor": 1.2, "periods": 4}
    new = {"attributes": {"region": 75}, "level": 15_000}
    kinds: Mapping[str, Any] = {
        "the first of a snapshot": [{"series": chosen[:1]}],
        "without a change": [{"series": [one]} for one in chosen],
        "another history": [{"series": [one], "history": history} for one in chosen],
        "a new store's department": [
            {"new": [{**new, "keys": {"store": FIRST_NEW + i, "department": one["department"]}}]}
            for i, one in enumerate(chosen)
        ],
        "another history, the region's sum": [
            {"series": [one], "history": history, "levels": ["region"]} for one in chosen
        ],
        "another history, the total": [
            {"series": [one], "history": history, "levels": ["total"]} for one in chosen[: max(3, count // 5)]
        ],
    }
    for kind, questions in kinds.items():
        seconds = []
        for question in questions:
            started = time.perf_counter()
            answer_question(served, question, Stop())
            seconds.append(time.perf_counter() - started)
        yield kind, seconds


def read_outcomes() -> pd.DataFrame:
    """What was reported after the history: ON, and `actual`."""
    files = sorted((DATA / "weekly").glob("*.csv"))
    if not files:
        raise SystemExit(
            f"No outcomes in {DATA}. Set TURNOVER_TEST_DATA to the folder that holds decathlon/."
        )
    table = pd.concat([pd.read_csv(path) for path in files]).rename(columns={**NAMES, "turnover": "actual"})
    return table.assign(week=pd.to_datetime(table["week"]))[[*ON, "actual"]]


def score(served: Served, in_use: InUse, outcomes: pd.DataFrame, count: int, *, is_given: bool) -> str:
    """The errors of series that are forecast by other stores, with their level given or not."""
    champion = in_use.champion
    assert champion is not None
    published = served.view.snapshot.read("forecasts")
    with in_use.bench.open() as overlay:
        placed, own = left_out(overlay, count, is_given=is_given)
        settle_in(overlay, placed)
        table = champion.forecast(*overlay.rows())
    made = with_peers_bounds(served.view.panel, table, placed, published)
    made = made.merge(own, on=["store", "department"]).drop(columns="store")
    made = made.rename(columns={"true_store": "store"}).assign(week=lambda each: pd.to_datetime(each["week"]))
    theirs = published.assign(week=pd.to_datetime(published["week"]))[[*ON, "forecast"]]
    rows = made.merge(outcomes, on=ON).merge(theirs, on=ON, suffixes=("", "_of_their_own"))
    actual = rows["actual"]
    within = {
        share: ((actual >= rows[f"lower_{share}"]) & (actual <= rows[f"upper_{share}"])).mean()
        for share in (80, 95)
    }
    errors = [
        wape(actual.to_numpy(), rows[name].to_numpy()) for name in ("forecast", "forecast_of_their_own")
    ]
    return (
        f"level {'given' if is_given else 'guessed'}: {len(placed)} series, {len(rows)} rows of "
        f"{rows['week'].nunique()} weeks, WAPE {errors[0]:.1%} (with their own history {errors[1]:.1%}), "
        f"{within[80]:.0%} and {within[95]:.0%} within the 80 % and 95 % bounds"
    )


def left_out(overlay: Overlay, count: int, *, is_given: bool) -> tuple[list[Placed], pd.DataFrame]:
    """Series placed as newcomers among the other stores, and whose they are in truth."""
    peers = peers_of(overlay)
    known = peers[peers["region"].notna()]
    placed, own = [], []
    for i, row in enumerate(known.sample(min(count, len(known)), random_state=1).to_dict("records")):
        keys = {"store": FIRST_NEW + i, "department": int(row["department"])}
        level = float(row["level"] * row["factor_in_force"]) if is_given else None
        newcomer = Newcomer(keys, {"region": int(row["region"])}, level, "", {})
        placed += place(overlay, newcomer, peers[peers["store"] != row["store"]], "new.0")
        own.append({**keys, "true_store": row["store"]})
    return placed, pd.DataFrame(own)


if __name__ == "__main__":
    main()
