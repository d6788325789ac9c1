"""Closures: which days count as closed, against dates looked up one by one, and what is forecast for them."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.core import relations
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.closures import closed, limited, with_closures
from turnover_assets.core.models import Rows
from turnover_assets.core.row_arrays import select_rows
from turnover_assets.core.rows import fill_scoring, read_rows
from turnover_assets.core.windows import make_windows
from turnover_assets.panel import PanelSpec
from turnover_assets_tests.backtest_factories import LIMITS, NOBODY
from turnover_assets_tests.factories import (
    daily,
    insert_frames,
    memory_warehouse,
    walmart_history,
    walmart_like,
)

LAST = date(2023, 5, 17)  # a Wednesday
SUNDAY = 6


def _days(since: int, until: int = 0) -> list[date]:
    """Days from so many before LAST to so many before it, both included."""
    return [LAST - timedelta(days=back) for back in range(since, until - 1, -1)]


def _working(days: list[date]) -> set[date]:
    return {day for day in days if day.weekday() != SUNDAY}


OPEN: Mapping[str, set[date]] = {
    "always": set(_days(500)),
    "working days": _working(_days(500)),
    "open on Sundays a year ago": _working(_days(500)) | set(_days(364 - 1, 364 - 14)),
    "Sundays since last week": _working(_days(500)) | set(_days(6)),
    "young": _working(_days(30)),
    "weekends": {day for day in _days(500) if day.weekday() >= 5} | {LAST},
}


@pytest.fixture(scope="module")
def rows() -> Iterator[Rows]:
    """A row for each of the shops above and each day to forecast."""
    panel = daily()
    facts = [(shop, day.strftime("%d/%m/%Y"), 10.0) for shop, days in OPEN.items() for day in sorted(days)]
    with memory_warehouse() as con:
        insert_frames(con, panel, {"takings": pd.DataFrame(facts, columns=["shop", "day", "amount"])})
        yield _scoring(con, panel, index_of(panel, LAST))


def _scoring(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: int) -> Rows:
    relations.prepare(con, panel, cutoff)
    relations.choose_scoring_pairs(con, panel, cutoff, 4)
    return select_rows(con, panel)


def _is_closed(shop: str, target: date) -> bool:
    """Looked up: the same day of the last week, of the four weeks before the whole horizon, of a year ago."""
    before = [target - timedelta(days=days) for days in (14, 21, 28, 35, 364)]
    newest = max(LAST - timedelta(days=k) for k in range(7) if (target - LAST).days % 7 == -k % 7)
    old = min(OPEN[shop]) <= LAST - timedelta(days=35)
    return old and not OPEN[shop] & {*before, newest}


def test_a_day_of_the_week_without_reports_is_closed(rows: Rows) -> None:
    panel = daily()
    shops = sorted(OPEN, key=lambda shop: (min(OPEN[shop]), shop))  # the order in which series are numbered

    found = closed(panel, rows)

    targets = zip(rows.identity["series_id"].tolist(), rows.identity["t"].tolist(), strict=True)
    expected = [_is_closed(shops[number - 1], label_of(panel, t)) for number, t in targets]
    assert len(rows) == len(OPEN) * panel.horizon
    assert found.tolist() == expected
    sundays = found.reshape(len(OPEN), panel.horizon).sum(axis=1)
    assert dict(zip(shops, sundays.tolist(), strict=True)) == {
        "always": 0,
        "working days": 2,
        "open on Sundays a year ago": 0,
        "Sundays since last week": 0,
        "young": 0,
        "weekends": 8,  # of ten: on the Wednesdays it has reported just now
    }


def test_what_is_closed_is_forecast_as_nothing_and_the_rest_as_the_target_may_be(rows: Rows) -> None:
    panel = daily()
    shut = closed(panel, rows)
    predicted = np.where(np.arange(len(rows)) % 2, 5.0, -5.0)
    target = panel.series.target.model_copy(update={"nonnegative": False})
    with_refunds = panel.model_copy(update={"series": panel.series.model_copy(update={"target": target})})

    assert limited(panel, rows, predicted).tolist() == np.where(shut, 0, predicted.clip(0)).tolist()
    assert limited(with_refunds, rows, predicted).tolist() == np.where(shut, 0, predicted).tolist()


def test_rows_to_forecast_carry_what_is_closed() -> None:
    panel, last = daily(), index_of(daily(), LAST)
    facts = [(shop, day.strftime("%d/%m/%Y"), 10.0) for shop, days in OPEN.items() for day in sorted(days)]
    with memory_warehouse() as con:
        insert_frames(con, panel, {"takings": pd.DataFrame(facts, columns=["shop", "day", "amount"])})
        NOBODY.write(con, panel)
        fill_scoring(con, panel, LIMITS)
        read = read_rows(con, panel, "scoring")
        window = next(make_windows(con, panel, [last - panel.horizon], LIMITS, NOBODY))

    for rows in (read, window.scoring):
        assert rows.closed.any()
        assert rows.closed.tolist() == closed(panel, rows).tolist()


def test_rows_of_weeks_stay_as_they_are(con: duckdb.DuckDBPyConnection) -> None:
    panel, frames = walmart_like(), walmart_history()
    insert_frames(con, panel, frames)
    rows = _scoring(con, panel, index_of(panel, date.fromisoformat(frames["sales"]["week"].max())))

    assert with_closures(panel, rows) is rows
    assert not rows.closed.any()


def test_weeks_are_never_closed(con: duckdb.DuckDBPyConnection) -> None:
    panel, frames = walmart_like(), walmart_history()
    insert_frames(con, panel, frames)
    last = index_of(panel, date.fromisoformat(frames["sales"]["week"].max()))

    found = closed(panel, _scoring(con, panel, last))

    assert len(found)
    assert not found.any()
