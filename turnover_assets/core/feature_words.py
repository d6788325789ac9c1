"""Features in words: what each of them is, for someone who did not make them.

What belongs here: a few plain words for each feature of features.py, which a test holds together. What does
not: sentences on forecasts (explanation_words.py).
"""

from turnover_assets.core.calendar import moving_holidays
from turnover_assets.core.features import feature_names
from turnover_assets.core.relations import WINDOWS, signed
from turnover_assets.panel import PanelSpec

YEARS = {1: "last year", 2: "two years ago"}


def feature_words(panel: PanelSpec) -> dict[str, str]:
    """What each feature is, by its name; amounts are as shares of the series' own scale.

    Example:
        >>> from turnover_assets.panel import default_panel
        >>> feature_words(default_panel())["mean_4"]
        'mean of the last 4 weeks'
    """
    known = _recent(panel) | _season(panel) | _calendar(panel)
    for level in panel.level_names:
        known |= _level(panel, level)
    return {name: known.get(name) or _other(name) for name in feature_names(panel)}


def _recent(panel: PanelSpec) -> dict[str, str]:
    every, windows = panel.frequency.every, WINDOWS[panel.frequency.every]
    return {
        "lag_0": f"newest {every}",
        **{f"lag_{k}": f"{_count(k, every)} before the newest" for k in windows.lags if k},
        **{f"mean_{k}": f"mean of the last {k} {every}s" for k in windows.means},
        **{f"growth_{k}": f"growth over a year, last {k} {every}s" for k in (windows.short, windows.medium)},
        "deviation": f"variation of the last {windows.medium} {every}s",
        "zero_share": f"share of the last {windows.medium} {every}s at zero",
        "periods_since_seen": f"{every}s since the last report",
        "log_scale": "size of the series",
        "age": f"age of the series in {every}s",
        "horizon_ahead": f"{every}s ahead",
    }


def _count(k: int, every: str) -> str:
    return f"{k} {every}{'' if k == 1 else 's'}"


def _season(panel: PanelSpec) -> dict[str, str]:
    every, windows = panel.frequency.every, WINDOWS[panel.frequency.every]
    around = f"{every}s around it"
    found = {f"year_ago_{signed(0)}": f"same {every} last year"}
    for k in (1, 2):
        found[f"year_ago_{signed(-k)}"] = f"{_count(k, every)} before it last year"
        found[f"year_ago_{signed(k)}"] = f"{_count(k, every)} after it last year"
    for years, when in YEARS.items():
        found[f"around_{years}_narrow"] = f"the {around} {when}"
        found[f"around_{years}_wide"] = f"more {around} {when}"
    return {
        **found,
        **{f"cycle_{j}": f"same day of the week, {_ago(j)}" for j in range(4)},
        "year_ago_grown": f"same {every} last year, with growth",
        "around_grown": f"{around} last year, with growth",
        "recent_shaped": "recent level, with last year's season",
        "recent_shaped_older": "recent level, with the season of two years ago",
        "around_years": f"{around}, mean of the years",
        **{f"pooled_{k}": f"last {k} {every}s, with its season" for k in (windows.short, windows.medium)},
    }


def _ago(j: int) -> str:
    return "the newest known" if j == 0 else f"{_count(j, 'week')} before the newest known"


def _level(panel: PanelSpec, level: str) -> dict[str, str]:
    every, windows = panel.frequency.every, WINDOWS[panel.frequency.every]
    its = f"its {level.replace('_', ' ')}"
    found = {
        f"{level}_shape_1": f"season of {its}",
        f"recent_{level}_shape_1": f"recent level, with the season of {its}",
        f"around_{level}_grown": f"{every}s around it last year, with the growth of {its}",
        f"year_ago_{level}_grown": f"same {every} last year, with the growth of {its}",
        f"{level}_code": f"which {its.removeprefix('its ')}",
    }
    for k in (windows.short, windows.medium):
        found[f"{level}_growth_{k}"] = f"growth of {its}, last {k} {every}s"
        found[f"pooled_{level}_around_{k}"] = f"last {k} {every}s, with the smoothed season of {its}"
        found[f"pooled_{level}_same_{k}"] = f"last {k} {every}s, with the season of {its}"
    return found


def _calendar(panel: PanelSpec) -> dict[str, str]:
    every = panel.frequency.every
    return {
        "season_sin": "time of the year (sine)",
        "season_cos": "time of the year (cosine)",
        "month": "month",
        "holidays": f"holidays in the {every}",
        "holidays_before": f"holidays in the {every} before",
        "holidays_after": f"holidays in the {every} after",
        "holidays_last_year": f"holidays in the {every} a year before",
        "days_to_year_end": "days to Christmas",
        **{f"days_to_{name}": f"days to {name.replace('_', ' ')}" for name in moving_holidays(panel)},
    }


def _other(name: str) -> str:
    """Attributes and values known ahead, which are called as the panel calls them."""
    words = name.removeprefix("attribute_").removeprefix("known_").replace("_", " ")
    return f"{words} (known ahead)" if name.startswith("known_") else words
