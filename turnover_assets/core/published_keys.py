"""What tells the rows of published tables apart, for copies that keep an index on it.

What belongs here: for each published table whose rows have one, the columns of its key. What does not: the
tables themselves. Those that are not named have rows without a key, such as findings of checks over time.
"""

from collections.abc import Mapping

from turnover_assets.panel import PanelSpec


def published_keys(panel: PanelSpec) -> Mapping[str, tuple[str, ...]]:
    """The key of each published table that has one: columns that are never empty and together unique."""
    series, time = tuple(panel.keys), panel.time
    member = ("level", "member")
    return {
        **given_keys(panel),
        panel.series.name: (*series, time),
        "forecasts": (*series, "horizon"),
        "forecast_history": ("cutoff", "role", *series, "horizon"),
        "forecasts_as_of": ("cutoff", *series, "horizon"),
        "explanations": (*series, "horizon"),
        "aggregates": (*member, "horizon"),
        "backtest": ("model", *series, "cutoff", "horizon"),
        "backtest_aggregates": ("model", *member, "cutoff", "horizon"),
        "accuracy": ("model",),
        "gate_checks": ("check",),
        "level_changes": ("level", "member"),
        "feature_ranges": ("feature",),
        "files": ("file_no",),
        "findings": ("finding_id",),
        "measures": ("cutoff", "measure", *member),
        "drift": ("cutoff", "kind", "name", *member),
        "stability": ("cutoff", time, *member),
        "inputs": ("cutoff",),
        "missing_series": ("cutoff", *series),
        "runs": ("run_id",),
    }


def given_keys(panel: PanelSpec) -> dict[str, tuple[str, ...]]:
    """The key of each table of what is known beside the target: attributes, and values known ahead."""
    ahead = {table.name: (*table.keys, panel.time) for table in panel.covariates}
    return {table.name: tuple(table.keys) for table in panel.static} | ahead
