"""How good forecasts are: what was promised, and what came of it.

What belongs here: figures over time, by horizon and by member. What does not: how they are computed
(core/monitoring).
"""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.models import BASELINE as SEASONAL_NAIVE
from turnover_assets.core.templating import Records
from turnover_assets.serving.dashboard import accuracy_words
from turnover_assets.serving.dashboard.charts import Chart, Line
from turnover_assets.serving.dashboard.lists import natural
from turnover_assets.serving.dashboard.members import member_address, member_title
from turnover_assets.serving.dashboard.rendering import Reader, Reading
from turnover_assets.serving.dashboard.shown import Shown

router = APIRouter()
LISTED = 60


@router.get("/accuracy")
def accuracy(reader: Reading, level: str = "") -> Response:
    """Promised and live."""
    shown, panel = reader.shown, reader.panel
    chosen = level if level in panel.level_names else panel.level_names[0]
    cutoffs = _by_cutoff(shown)
    return reader.page(
        "accuracy",
        "Accuracy",
        "/accuracy",
        all=accuracy_words.headline(shown),
        chart=_chart(reader, cutoffs) if len(cutoffs) > 1 else None,
        cutoffs=list(reversed(cutoffs)),
        horizons=_by_horizon(shown),
        level=chosen,
        members=_by_member(shown, chosen),
        listed=LISTED,
        promise=_promise(shown),
    )


def _promise(shown: Shown) -> accuracy_words.Accuracy:
    """What the backtest of the newest training found for all series."""
    return accuracy_words.backtest_accuracy(shown, TOTAL).get("", accuracy_words.Accuracy())


def _by_cutoff(shown: Shown) -> Records:
    if not shown.view.has("monitored_accuracy"):
        return []
    return shown.view.records(
        "SELECT cutoff, periods, wape, wape_promised, wape_seasonal_naive, bias, coverage_80, coverage_95, "
        "model_version FROM monitored_accuracy WHERE level = $total AND horizon IS NULL AND basis = 'series' "
        "AND wape IS NOT NULL ORDER BY cutoff",
        {"total": TOTAL},
    )


def _by_horizon(shown: Shown) -> Records:
    """Live and promised by periods ahead; live figures are of the newest horizon of cutoffs."""
    live: Records = []
    if shown.view.has("monitored_accuracy"):
        live = shown.view.records(
            "SELECT horizon, sum(wape * rows) / sum(rows) AS live, "
            "sum(wape_seasonal_naive * rows) / sum(rows) AS naive, "
            "sum(coverage_80 * rows) / sum(rows) AS coverage_80 FROM ("
            "SELECT *, dense_rank() OVER (PARTITION BY horizon ORDER BY cutoff DESC) AS place "
            "FROM monitored_accuracy WHERE level = $total AND horizon IS NOT NULL AND basis = 'series' "
            "AND wape IS NOT NULL) WHERE place <= $horizon GROUP BY horizon",
            {"total": TOTAL, "horizon": shown.panel.horizon},
        )
    promised: Records = []
    if shown.view.has("backtest_accuracy"):
        promised = shown.view.records(
            "SELECT CAST(member AS INTEGER) AS horizon, max(wape) FILTER (model = $model) AS promised, "
            "max(wape) FILTER (model = $naive) AS naive, "
            "max(coverage_80) FILTER (model = $model) AS coverage "
            "FROM backtest_accuracy WHERE scope = 'horizon' AND basis = 'series' AND cutoff IS NULL "
            "GROUP BY member",
            {"model": shown.judged_as, "naive": SEASONAL_NAIVE},
        )
    return _side_by_side(live, promised)


def _side_by_side(live: Records, promised: Records) -> Records:
    known = {int(row["horizon"]): row for row in live}
    told = {int(row["horizon"]): row for row in promised}
    nothing: dict[str, Any] = {}
    return [
        {
            "horizon": horizon,
            "live": known.get(horizon, nothing).get("live"),
            "promised": told.get(horizon, nothing).get("promised"),
            "naive": known.get(horizon, nothing).get("naive") or told.get(horizon, nothing).get("naive"),
            "coverage_80": known.get(horizon, nothing).get("coverage_80")
            or told.get(horizon, nothing).get("coverage"),
        }
        for horizon in sorted({*known, *told})
    ]


def _by_member(shown: Shown, level: str) -> list[tuple[str, str | None, accuracy_words.Accuracy]]:
    """Title, page and accuracy of each member of a level, the least accurate first."""
    found = accuracy_words.level_accuracy(shown, level)
    rows = [
        (
            member_title(level, name),
            member_address(level, name) if shown.member(level, name) else None,
            figures,
        )
        for name, figures in found.items()
    ]
    rows.sort(key=lambda row: (-(row[2].wape or 0.0), natural(row[0])))
    return rows


def _chart(reader: Reader, cutoffs: Records) -> Chart:
    periods = [row["cutoff"] for row in cutoffs]
    lines = [
        Line("last-year", "Repeating last year", _percent(cutoffs, "wape_seasonal_naive")),
        Line("adjusted", "Promised", _percent(cutoffs, "wape_promised")),
        Line("forecast", "Live", _percent(cutoffs, "wape")),
    ]
    newest = reader.formats.share(cutoffs[-1]["wape"])
    summary = f"The newest forecasts with an outcome were off by {newest}. The table below has every cutoff."
    return Chart(
        "accuracy", "Error of published forecasts in %, by when they were made", summary, periods, lines
    )


def _percent(rows: Records, name: str) -> list[float | None]:
    return [None if row[name] is None else 100 * row[name] for row in rows]
