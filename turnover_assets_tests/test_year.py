"""Some weeks in fast motion under the real daemon; a whole year is benchmarks/year.py."""

from pathlib import Path

import pytest

from turnover_assets_tests.year import WEEKS, Year, fast_motion


@pytest.mark.slow
@pytest.mark.xdist_group("daemon")
@pytest.mark.timeout(900)
def test_weeks_with_planted_events_are_noticed_and_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    told: list[str] = []
    with fast_motion(tmp_path, WEEKS, told.append, sensor_interval_seconds=1) as year:
        year.run()

        assert unnoticed(year) == [], told
        assert (year.lost(), year.doubled()) == (0, 0)
        assert year.repeated_runs() == []
        assert set(year.seen) == {"bad file", "late file", "restatement", "killed run", "killed daemon"}


def unnoticed(year: Year) -> list[str]:
    return [event for event, seen in year.seen.items() if not seen.noticed]
