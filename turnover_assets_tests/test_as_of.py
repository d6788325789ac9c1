"""Forecasts as of past cutoffs: the same as a backtest's, by partition, and published."""

from datetime import date

import dagster as dg
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from typer.testing import CliRunner

from turnover_assets.backtesting import BacktestOrder, hold_backtest
from turnover_assets.cli import app
from turnover_assets.defs import common, jobs
from turnover_assets.defs.partitions import CUTOFFS
from turnover_assets.defs.training_sensors import Present, look_for_changes
from turnover_assets.errors import TurnoverError
from turnover_assets.maintenance import Cutoffs, backfill
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.factories import Landed, quiet
from turnover_assets_tests.test_sensors import materialise

PAST = dg.StaticPartitionsDefinition(["2024-01-06"])
POSSIBLE = ["2024-01-06", "2024-01-13", "2024-01-20"]


@dg.asset(key=common.AS_OF, partitions_def=PAST)
def past_forecasts() -> None:
    """Stands for the asset, whose partitions need a home."""


def instance_of(settings: Settings) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(settings.dagster_path))


def partitions_of(settings: Settings) -> list[str]:
    with instance_of(settings) as instance:
        return sorted(instance.get_dynamic_partitions(str(CUTOFFS.name)))


def test_publishing_makes_a_partition_of_each_cutoff_that_can_be_forecast(plain: Landed) -> None:
    labels = partitions_of(plain.settings)

    cutoff = pd.Timestamp(current(plain.settings.published_path).facts["cutoff"])
    assert pd.Timestamp(labels[-1]) == cutoff - pd.Timedelta(7, "D")  # one outcome is known
    gaps = pd.Series(pd.to_datetime(labels)).diff().dropna()
    assert (gaps == pd.Timedelta(7, "D")).all()


def test_a_backfill_publishes_what_a_backtest_of_the_same_cutoff_says(copied: Landed) -> None:
    chosen = partitions_of(copied.settings)[-9]

    done = backfill(copied.settings, Cutoffs(named=(date.fromisoformat(chosen),)), quiet)

    assert done == [chosen]
    found = current(copied.settings.published_path).read("forecasts_as_of").drop(columns="made_at")
    order = BacktestOrder(cutoffs=(date.fromisoformat(chosen),))
    expected = hold_backtest(copied.settings, order).rows
    by = ["store", "department", "horizon"]
    assert_frame_equal(
        found.sort_values(by, ignore_index=True),
        expected.sort_values(by, ignore_index=True),
        check_dtype=False,
    )


@pytest.mark.slow
def test_a_second_backfill_keeps_other_cutoffs_and_replaces_its_own(copied: Landed) -> None:
    first, second = (date.fromisoformat(label) for label in partitions_of(copied.settings)[-10:-8])
    backfill(copied.settings, Cutoffs(named=(first,)), quiet)
    before = current(copied.settings.published_path).read("forecasts_as_of")

    backfill(copied.settings, Cutoffs(since=first, until=second), quiet)

    after = current(copied.settings.published_path).read("forecasts_as_of")
    assert after["cutoff"].nunique() == 2
    assert len(after[after["cutoff"] == before["cutoff"].iloc[0]]) == len(before)


def test_partitions_made_in_the_page_are_published_by_the_sensor() -> None:
    made_from = {name: name for name in jobs.MADE_FROM}
    present = Present(made_from, is_whole=True, unusable=lambda: "")
    with dg.DagsterInstance.ephemeral() as instance:
        materialise(instance, common.LANDED, ["f@1"], landed_version="v1", **{"dagster/row_count": 5})
        materialise(instance, common.PUBLISHED, landed_version="v1", **made_from)
        before = look_for_changes(instance, 3, present)
        dg.materialize([past_forecasts], instance=instance, partition_key="2024-01-06")
        unpublished = look_for_changes(instance, 3, present)
        run = common.latest_run(instance, common.AS_OF)
        materialise(instance, common.PUBLISHED, landed_version="v1", as_of_run=run, **made_from)
        after = look_for_changes(instance, 3, present)

    assert isinstance(before, dg.SkipReason)
    assert isinstance(unpublished, dg.RunRequest)
    assert isinstance(after, dg.SkipReason)


@pytest.mark.parametrize(
    ("cutoffs", "expected"),
    [
        (Cutoffs(named=(date(2024, 1, 13),)), ["2024-01-13"]),
        (Cutoffs(since=date(2024, 1, 10)), ["2024-01-13", "2024-01-20"]),
        (Cutoffs(until=date(2024, 1, 6)), ["2024-01-06"]),
        (Cutoffs(named=(date(2024, 1, 6),), since=date(2024, 1, 20)), ["2024-01-06", "2024-01-20"]),
    ],
    ids=["named", "since", "until", "both"],
)
def test_cutoffs_are_named_or_a_range(cutoffs: Cutoffs, expected: list[str]) -> None:
    assert cutoffs.choose(POSSIBLE) == expected


@pytest.mark.parametrize(
    ("cutoffs", "possible", "message"),
    [
        (Cutoffs(named=(date(2024, 1, 7),)), POSSIBLE, "2024-01-07; they go from 2024-01-06 to 2024-01-20"),
        (Cutoffs(), POSSIBLE, "Name some by --cutoff"),
        (Cutoffs(since=date(2025, 1, 1)), POSSIBLE, "No cutoff is meant"),
        (Cutoffs(named=(date(2024, 1, 6),)), [], "Run `turnover run` first"),
    ],
    ids=["no period", "none", "empty range", "nothing yet"],
)
def test_cutoffs_that_cannot_be_forecast_are_refused(
    cutoffs: Cutoffs, possible: list[str], message: str
) -> None:
    with pytest.raises(TurnoverError, match=message):
        cutoffs.choose(possible)


def test_the_command_refuses_what_is_no_cutoff(plain: Landed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(plain.settings.home))

    result = CliRunner().invoke(app, ["backfill", "--cutoff", "1999-01-01"])

    assert result.exit_code == 1
    assert "they go from" in result.stderr


def test_no_refresh_or_training_makes_forecasts_as_of_past_cutoffs(plain: Landed) -> None:
    with instance_of(plain.settings) as instance:
        assert instance.get_latest_materialization_event(common.AS_OF) is None
        assert instance.get_runs_count(dg.RunsFilter(job_name=jobs.BACKFILL)) == 0
