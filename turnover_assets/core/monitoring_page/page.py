"""The page of a cutoff, and the page that lists them.

What belongs here: putting the sections together. What does not: their content (the other modules here).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import duckdb

from turnover_assets.core.accuracy import TOTAL
from turnover_assets.core.calendar import index_of
from turnover_assets.core.monitoring.tables import MEASURES, prepare
from turnover_assets.core.monitoring_page import drift, health, performance
from turnover_assets.core.monitoring_page.headline import PSI_IN_WORDS, headline
from turnover_assets.core.templating import Records, records, template
from turnover_assets.panel import PanelSpec

LISTED = (
    "wape",
    "wape_seasonal_naive",
    "wape_promised",
    "bias",
    "coverage_80",
    "stability",
    "drifted_share",
    "missing_share",
)


@dataclass(frozen=True)
class Made:
    """What a page is of, and when and how it was made.

    Attributes:
        cutoff: The newest published cutoff, which the page is of.
        model: The champion's candidate.
        version: Its version in the registry.
        made_at: When the page was made.
        release: Version of this package.
        accuracy_ratio: Published over promised accuracy, both against naive, from which on to look.
    """

    cutoff: date
    model: str
    version: int
    made_at: datetime
    release: str
    accuracy_ratio: float = 1.25


def monitoring_page(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    made: Made,
    alerts: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """The page of the newest cutoff; it shows how every cutoff published so far turned out.

    Args:
        con: Connection with the cleaned tables, those of schema monitoring, and the history of forecasts.
        panel: The panel.
        made: What the page is of.
        alerts: The open alerts, each with `severity`, `rule`, `since`, `sentence` and `advice`; None where
            they are not known, so that the page is silent on them.

    Returns:
        HTML that loads nothing from anywhere.
    """
    prepare(con, panel)
    last = index_of(panel, made.cutoff)
    measures = performance.total_measures(con, made.cutoff)
    features, inputs = drift.features(con, panel, made.cutoff), health.inputs(con, panel, made.cutoff)
    target = drift.target(con, panel, made.cutoff, last)
    return template("monitoring").render(
        panel=panel,
        made=made,
        every=panel.frequency.every,
        psi_in_words=PSI_IN_WORDS,
        facts=headline(
            panel, measures, inputs["newest"], features, target["total"], alerts, made.accuracy_ratio
        ),
        measures=measures,
        alerts=alerts,
        performance=performance.performance(con, panel, made.cutoff, last),
        stability=performance.stability(con, panel, made.cutoff),
        features=features,
        target=target,
        inputs=inputs,
        runs=health.runs(con),
    )


def index_page(con: duckdb.DuckDBPyConnection, panel: PanelSpec, made: Made, cutoffs: Sequence[date]) -> str:
    """The list of pages with the headline figures of each, as they were seen at its cutoff.

    Args:
        con: Connection with the tables of schema monitoring.
        panel: The panel.
        made: What the newest page is of.
        cutoffs: The cutoffs that have a page, the newest first; each is named after its own.
    """
    prepare(con, panel)
    known = {row["cutoff"]: row for row in _measured(con)}
    pages = [{"cutoff": cutoff, **dict.fromkeys(LISTED), **known.get(cutoff, {})} for cutoff in cutoffs]
    return template("monitoring_index").render(
        panel=panel, made=made, every=panel.frequency.every, pages=pages
    )


def _measured(con: duckdb.DuckDBPyConnection) -> Records:
    pivoted = ", ".join(f"max(value) FILTER (measure = '{name}') AS {name}" for name in LISTED)
    return records(con, f"SELECT cutoff, {pivoted} FROM {MEASURES} WHERE level = '{TOTAL}' GROUP BY cutoff")
