"""Features in plain words, for pictures and tables that people look at.

What belongs here: the words for each feature that features.py makes. What does not: sentences on forecasts
(explanation_words.py), which speak of groups. A feature without words here is shown by its name.
"""

from turnover_assets.core.calendar import moving_holidays
from turnover_assets.core.features import feature_names
from turnover_assets.core.histories import WINDOWS, signed
from turnover_assets.panel import PanelSpec

SHIFTS = {-2: "2 weeks before", -1: "1 week before", 0: "", 1: "1 week after", 2: "2 weeks after"}
AGO = {1: "last year", 2: "2 years ago"}


def feature_words(panel: PanelSpec) -> dict[str, str]:
    """Words for every feature of the panel, by its name; no two have the same.

    Example:
        >>> from turnover_assets.panel import default_panel
        >>> words = feature_words(default_panel())
        >>> words["year_ago_same"], words["mean_4"]
        ('same week last year', 'mean of the newest 4 weeks')
        >>> words["pooled_department_around_13"]
        'newest 13 weeks times season of all years, department'
    """
    known = _recent(panel) | _season(panel) | _calendar(panel) | _own(panel)
    for level in panel.level_names:
        known |= _level(panel, level)
    return {name: known.get(name, _spaced(name)) for name in feature_names(panel)}


def _recent(panel: PanelSpec) -> dict[str, str]:
    every, windows = panel.frequency.every, WINDOWS[panel.frequency.every]
    lags = {f"lag_{k}": f"{_count(k, every)} before the newest" for k in windows.lags}
    return {
        **lags,
        "lag_0": f"newest {every}",
        **{f"mean_{k}": f"mean of the newest {k} {every}s" for k in windows.means},
        **{f"growth_{k}": _growth(panel, k) for k in (windows.short, windows.medium)},
        "deviation": f"spread of the newest {windows.medium} {every}s",
        "zero_share": f"share of the newest {windows.medium} {every}s at 0",
        "periods_since_seen": f"{every}s since the last report",
        "log_scale": "size of the series",
        "age": f"{every}s of history",
        "horizon_ahead": f"{every}s ahead",
    }


def _season(panel: PanelSpec) -> dict[str, str]:
    every, windows = panel.frequency.every, WINDOWS[panel.frequency.every]
    same = f"same {every} last year"
    found = {f"year_ago_{signed(k)}": f"{text} the {same}" for k, text in SHIFTS.items() if k}
    for years, ago in AGO.items():
        for name, reach in (("narrow", "1 week"), ("wide", "2 weeks")):
            found[f"around_{years}_{name}"] = f"mean within {reach} of the same {every} {ago}"
    found["cycle_0"] = "same weekday, newest known"
    found |= {f"cycle_{j}": f"same weekday, {_count(j, 'week')} before the newest known" for j in (1, 2, 3)}
    newest = f"newest {windows.means[0]} {every}s"
    return {
        **found,
        "year_ago_same": same,
        "year_ago_grown": f"{same} times growth of {windows.medium} {every}s",
        "around_grown": f"around the {same} times growth of {windows.short} {every}s",
        "recent_shaped": f"{newest} times last year's season",
        "recent_shaped_older": f"{newest} times season of 2 years ago",
        "around_years": f"mean around the same {every} of all years",
        **{
            f"pooled_{k}": f"newest {k} {every}s times season of all years"
            for k in (windows.short, windows.medium)
        },
    }


def _level(panel: PanelSpec, level: str) -> dict[str, str]:
    """Features of one level: what is said of all its series together ends with its name."""
    every, windows = panel.frequency.every, WINDOWS[panel.frequency.every]
    same, found = f"same {every} last year", {f"{level}_shape_1": "last year's season"}
    found[f"recent_{level}_shape_1"] = f"newest {windows.means[0]} {every}s times last year's season"
    for k in (windows.short, windows.medium):
        found[f"{level}_growth_{k}"] = _growth(panel, k)
        found[f"pooled_{level}_around_{k}"] = f"newest {k} {every}s times season of all years"
        found[f"pooled_{level}_same_{k}"] = f"newest {k} {every}s times same {every} of all years"
    found[f"around_{level}_grown"] = f"around the {same} times growth of {windows.short} {every}s"
    found[f"year_ago_{level}_grown"] = f"{same} times growth of {windows.medium} {every}s"
    told = {name: f"{text}, {_spaced(level)}" for name, text in found.items()}
    return {**told, f"{level}_code": f"which {_spaced(level)}"}


def _calendar(panel: PanelSpec) -> dict[str, str]:
    every, on = panel.frequency.every, "on" if panel.frequency.every == "day" else "in"
    moving = {f"days_to_{name}": f"days to {_spaced(name).title()}" for name in moving_holidays(panel)}
    return {
        **moving,
        "season_sin": "time of the year (sine)",
        "season_cos": "time of the year (cosine)",
        "month": "month",
        "holidays": f"holidays {on} the {every}",
        "holidays_before": f"holidays {on} the {every} before",
        "holidays_after": f"holidays {on} the {every} after",
        "holidays_last_year": f"holidays {on} the same {every} last year",
        "days_to_year_end": "days to Christmas",
    }


def _own(panel: PanelSpec) -> dict[str, str]:
    """The panel's own columns: attributes, and values known ahead."""
    static = [column.name for table in panel.static for column in table.columns]
    ahead = [column.name for table in panel.covariates for column in table.columns]
    return {
        **{f"attribute_{name}": f"{_spaced(name)} (attribute)" for name in static},
        **{f"known_{name}": f"{_spaced(name)} (known ahead)" for name in ahead},
    }


def _growth(panel: PanelSpec, length: int) -> str:
    return f"growth on last year, newest {length} {panel.frequency.every}s"


def _count(number: int, every: str) -> str:
    return f"{number} {every}{'' if number == 1 else 's'}"


def _spaced(name: str) -> str:
    return name.replace("_", " ")
