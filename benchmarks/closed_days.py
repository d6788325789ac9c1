"""What it is worth that recursive models know which days are closed: a retailer by day, with and without.

What belongs here: a synthetic retailer whose shops are closed on Sundays, and WAPE of each candidate where
forecasts of closed days are no newest values, and where they are taken for such. What does not: other
retailers (accuracy.py, walmart.py). It needs no data.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from ours import entrants_for
from peer_windows import markdown

from turnover_assets.core.backtest import run_backtest
from turnover_assets.core.ledger import Ledger
from turnover_assets.core.models import Blend
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.rows import RowLimits
from turnover_assets.core.windows import Window, make_windows, recent_cutoffs
from turnover_assets_tests.factories import daily, insert_frames, memory_warehouse

SUNDAY = 6
LIMITS = RowLimits(share=0.25, max_rows=200_000, alive=28)
SHARE_OF_WEEKDAY = (0.8, 0.85, 0.9, 1.0, 1.3, 1.6, 0.9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shops", type=int, default=24)
    parser.add_argument("--days", type=int, default=900)
    parser.add_argument("--windows", type=int, default=6)
    chosen = parser.parse_args()
    began, panel = time.perf_counter(), daily()
    with memory_warehouse() as con:
        insert_frames(con, panel, {"takings": takings(chosen.shops, chosen.days)})
        cutoffs = recent_cutoffs(con, panel, chosen.windows, LIMITS.alive)
        repairs = Repairs(Ledger(), strength=4.0, alive=LIMITS.alive)
        windows = list(make_windows(con, panel, cutoffs, LIMITS, repairs))
    scores = {
        name: run_backtest(panel, held, entrants_for(Blend.name), seed=0, threads=2).scores()
        for name, held in (("closed days known", windows), ("not known", list(forgotten(windows))))
    }
    table = pd.DataFrame({name: found.set_index("model")["wape"] for name, found in scores.items()}) * 100
    table["change"] = (100 * (table.iloc[:, 0] / table.iloc[:, 1] - 1)).map("{:+.1f} %".format)
    closed = np.mean([window.scoring.closed.mean() for window in windows])
    print(f"WAPE in percent, {len(cutoffs)} windows of {panel.horizon} days, {closed:.0%} of them closed\n")
    print(markdown(table))
    print(f"\n{time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f} at the end")
    return 0


def forgotten(windows: Sequence[Window]) -> Iterator[Window]:
    """The windows, where nobody knows what is closed."""
    for window in windows:
        rows = window.scoring
        yield replace(window, scoring=replace(rows, identity=rows.identity.drop(columns="closed")))


def takings(shops: int, days: int) -> pd.DataFrame:
    """Amounts by shop and day, as the daily panel's files have them; no shop opens on Sundays."""
    rng = np.random.default_rng(3)
    calendar = pd.date_range("2021-01-04", periods=days)
    open_on = calendar[calendar.weekday != SUNDAY]
    season = 1 + 0.2 * np.sin(2 * np.pi * open_on.dayofyear / 365)
    weekday = np.array(SHARE_OF_WEEKDAY)[open_on.weekday]
    frames = []
    for shop in range(shops):
        level = rng.uniform(200, 3000) * np.exp(np.cumsum(rng.normal(0, 0.01, len(open_on))))
        amount = level * season * weekday * rng.normal(1, 0.08, len(open_on))
        frames.append(
            pd.DataFrame({"shop": f"{shop}", "day": open_on.strftime("%d/%m/%Y"), "amount": amount})
        )
    return pd.concat(frames, ignore_index=True)


if __name__ == "__main__":
    sys.exit(main())
