"""A year in fast motion: a synthetic retailer's weekly files land one by one under the real daemon.

For test_daemon.py (some weeks) and benchmarks/year.py (a year); the product knows nothing of it. platform.py
has the processes, year.py the deliveries with what is planted in them, looks.py what the platform made
of that by its own records, account.py what was lost, doubled or repeated.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from turnover_assets.core.synthetic import make_retailer
from turnover_assets.runner import bring_up_to_date
from turnover_assets_tests.factories import BASELINES_ONLY, quiet, settings_for
from turnover_assets_tests.fast_motion.looks import LOOKS
from turnover_assets_tests.fast_motion.platform import Platform
from turnover_assets_tests.fast_motion.year import AMOUNT, KEYS, WEEK, Plan, Year, as_reported, weeks_of

STORES, DEPARTMENTS, HISTORY, SEED = 12, 4, 116, 12


@contextmanager
def fast_motion(root: Path, plan: Plan, told: Callable[[str], None], **others: Any) -> Iterator[Year]:
    """A home with its history published and the daemon running, ready for the weeks of a plan.

    Args:
        root: An empty folder.
        plan: What happens when.
        told: Called with news.
        others: Settings other than those of quick runs.
    """
    settings = settings_for(
        root / "var",
        others.pop("training_share", BASELINES_ONLY),
        **{"backtest_windows": plan.windows, **others},
    )
    retailer = make_retailer(stores=STORES, departments=DEPARTMENTS, weeks=HISTORY + plan.weeks, seed=SEED)
    reported = as_reported(retailer.turnover, plan)
    history = reported[~reported[WEEK].isin(weeks_of(reported, plan))]
    settings.landing_path.mkdir(parents=True)
    history.to_csv(settings.landing_path / "history.csv", index=False)
    retailer.stores.to_csv(settings.landing_path / "stores.csv", index=False)
    bring_up_to_date(settings, settings.landing_path, quiet)
    platform = Platform(settings, root / "ui.log")
    platform.start()
    try:
        yield Year(platform, plan, reported, history[[*KEYS, AMOUNT]], LOOKS, told)
    finally:
        platform.stop()
