"""What-if questions to what is served: which model answers, and the answer as plain data.

What belongs here: what the REST API and the web page share. What does not: working a question out
(core/what_if/), and HTTP (routes/what_if.py).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from typing import Any

from turnover_assets.core.forecast_history import CHAMPION
from turnover_assets.core.what_if.answer import Answer, answer
from turnover_assets.core.what_if.overlay import Overlay
from turnover_assets.core.what_if.question import read_question
from turnover_assets.core.what_if.remarks import Ranges
from turnover_assets.core.what_if.sums import BASELINE, FIGURES
from turnover_assets.serving.champion import Champion
from turnover_assets.serving.problems import busy_problem
from turnover_assets.serving.served import Served
from turnover_assets.serving.view import Stop, View

SUMS = ("baseline", "forecast", "difference")
RANGES = "feature_ranges"
NEXT_PUBLISHING = 300  # seconds after which it is worth to look whether there is a model


def champion_of(served: Served) -> Champion:
    """The model that questions beside a snapshot are answered by.

    Raises:
        Problem: There is no good one.
    """
    in_use = served.champion
    if in_use is not None and in_use.champion is not None:
        return in_use.champion
    raise busy_problem(
        "No model can be asked: that of the snapshot that is served is missing or was refused.",
        "Look-ups of published forecasts go on. Whoever runs the service finds the reason at /readyz, and "
        "can publish the model anew with `turnover run --retrain`.",
        seconds=NEXT_PUBLISHING,
    )


def answer_question(served: Served, asked: Mapping[str, Any], stop: Stop) -> dict[str, Any]:
    """The answer to a question, as plain data for JSON.

    Args:
        served: What is served.
        asked: The question; see core/what_if/question.py.
        stop: Ends it from another thread.

    Raises:
        QuestionError: It cannot be answered as it was asked.
        Problem: There is no model to ask.
        duckdb.InterruptException: It was ended.
    """
    champion = champion_of(served)
    assert served.champion is not None
    bench, panel = served.champion.bench, served.view.panel

    @contextmanager
    def opened() -> Iterator[Overlay]:
        with bench.open() as overlay, stop.watching(overlay.con):
            yield overlay

    question = read_question(panel, bench.last, asked)
    found = answer(opened, panel, champion, question, _ranges(served.view), served.champion.unchanged)
    model = {"version": champion.version, "candidate": champion.name, "role": CHAMPION}
    return {
        "served": served.origin.document(),
        "model": {**model, "problem": served.champion.problem or None},
        "changes": list(found.changes),
        "warnings": [asdict(remark) for remark in found.warnings],
        "data": _rows(found, [*panel.keys, panel.time, "horizon"]),
        "totals": _totals(found, panel.time),
        "aggregates": [_plain(row) for row in found.sums.astype(object).to_dict("records")],
    }


def _ranges(view: View) -> Ranges:
    if not view.has(RANGES):
        return {}
    missing = "CAST('nan' AS DOUBLE)"
    ends = ", ".join(f"coalesce(CAST({end} AS DOUBLE), {missing}) AS {end}" for end in ("low", "high"))
    rows = view.arrow(f"SELECT feature, {ends} FROM {RANGES}").to_pylist()
    return {row["feature"]: (row["low"], row["high"]) for row in rows}


def _rows(found: Answer, identity: list[str]) -> list[dict[str, Any]]:
    table = found.table[[*identity, *BASELINE, *FIGURES, "difference", "is_new"]]
    return [_plain(row) for row in table.astype(object).to_dict("records")]


def _totals(found: Answer, time: str) -> list[dict[str, Any]]:
    """Sums over the series asked for; without bounds, since bounds do not add up."""
    sums = found.table.groupby([time, "horizon"], sort=True)[list(SUMS)].sum(min_count=1).reset_index()
    return [_plain(row) for row in sums.astype(object).to_dict("records")]


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Values as JSON has them: dates in ISO form, nothing for what is not known."""
    return {str(name): _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    return None if value is None or value != value else value
