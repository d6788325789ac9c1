"""`turnover adjustments`, and what a ledger does to a run."""

import csv
import getpass
import io
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import Result
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core.adjustments import decide, write_adjustments
from turnover_assets.core.anomalies import Finding
from turnover_assets.core.calendar import label_of
from turnover_assets.core.ledger import Ledger
from turnover_assets.errors import TurnoverError
from turnover_assets.runner import bring_up_to_date
from turnover_assets.settings import Settings
from turnover_assets.storage.ledger import read_ledger
from turnover_assets.storage.snapshots import current, publish
from turnover_assets_tests.factories import (
    Landed,
    default_history,
    default_panel,
    insert_frames,
    quiet,
    settings_for,
)

SINCE, UNTIL = 1310, 1330
BLOCK = Finding(
    kind="block",
    where={"department": 88},
    since=SINCE,
    until=UNTIL,
    ongoing=True,
    factor=2.0,
    effect=0.69,
    error=0.05,
    strength=3.0,
    remedy="divide",
    value=None,
    rows=40,
    sentence="Department 88 is reported at twice its level.",
)
POINT = Finding(
    kind="point",
    where={"store": 2, "department": 73},
    since=SINCE,
    until=SINCE,
    ongoing=False,
    factor=1000.0,
    effect=6.9,
    error=0.1,
    strength=30.0,
    remedy="replace",
    value=12.5,
    rows=1,
    sentence="A value of exactly 1,000,000.",
)
ZEROS = Finding(
    kind="zeros",
    where={"store": 3},
    since=SINCE,
    until=UNTIL,
    ongoing=False,
    factor=None,
    effect=float("nan"),
    error=float("nan"),
    strength=1.0,
    remedy="empty",
    value=None,
    rows=9,
    sentence="Zeros that stand for missing values.",
)
Adjustments = Callable[..., Result]


@pytest.fixture
def settings(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> Settings:
    """A home with three findings in its published snapshot, one of them applied."""
    settings, panel = settings_for(tmp_path / "var"), default_panel()
    insert_frames(con, panel, default_history(periods=3))
    made = decide([BLOCK, POINT, ZEROS], Ledger(), settings.adjustment_strength)
    write_adjustments(con, panel, made)
    publish(
        con, settings.published_path, {"adjustments": "FROM cleaned.adjustments"}, {"cutoff": "2016-01-02"}
    )
    return settings


@pytest.fixture
def adjustments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Adjustments:
    """Call the command in the test's home."""
    monkeypatch.setenv("TURNOVER_HOME", str(tmp_path / "var"))

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["adjustments", *arguments], catch_exceptions=False)

    return call


def listed(result: Result) -> dict[str, dict[str, str]]:
    """Rows of a list in csv, by finding."""
    assert result.exit_code == 0, result.stderr
    return {row["adjustment_id"]: row for row in csv.DictReader(io.StringIO(result.stdout))}


def entries(settings: Settings) -> dict[str, Any]:
    return tomllib.loads(settings.ledger_path.read_text("utf-8"))


def test_all_adjustments_are_listed_for_people(settings: Settings, adjustments: Adjustments) -> None:
    result = adjustments("list")

    assert result.exit_code == 0
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.splitlines()}
    panel = settings.panel_spec
    since, until = label_of(panel, SINCE), label_of(panel, UNTIL)
    assert (
        lines[BLOCK.finding_id]
        == f"proposed detector department 88 {since} goes on ÷ 2 40 3.0 {BLOCK.sentence}"
    )
    assert lines[ZEROS.finding_id] == (
        f"proposed detector store 3 {since} {until} as missing 9 1.0 {ZEROS.sentence}"
    )
    assert " = 12.50 " in lines[POINT.finding_id]
    assert result.stderr == ""


def test_a_list_can_be_narrowed_to_some_statuses(settings: Settings, adjustments: Adjustments) -> None:
    one = listed(adjustments("list", "--status", "applied", "--format", "csv"))
    none = adjustments("list", "--status", "vetoed")

    assert set(one) == {POINT.finding_id}
    assert (none.exit_code, none.stdout, none.stderr) == (0, "", "There are no such adjustments.\n")


def test_what_is_accepted_stands_in_the_ledger_without_an_end_if_it_goes_on(
    settings: Settings, adjustments: Adjustments
) -> None:
    result = adjustments("accept", BLOCK.finding_id[:5], "--who", "m.rossi")

    assert result.exit_code == 0, result.stderr
    (entry,) = entries(settings)["adjustment"]
    assert {name: entry[name] for name in ("where", "factor", "reason", "who")} == {
        "where": {"department": 88},
        "factor": 2.0,
        "reason": BLOCK.sentence,
        "who": "m.rossi",
    }
    assert "until" not in entry
    assert entry["since"] == label_of(settings.panel_spec, SINCE)
    assert str(settings.ledger_path) in result.stderr
    assert "turnover run" in result.stderr


@pytest.mark.parametrize(
    ("found", "options", "remedy"),
    [
        (BLOCK, ["--factor", "1.9"], {"factor": 1.9}),
        (POINT, [], {"value": 12.5}),
        (ZEROS, [], {"missing": True}),
        (ZEROS, ["--factor", "0.5"], {"factor": 0.5}),
    ],
    ids=["another factor", "value", "missing", "factor instead"],
)
def test_every_remedy_can_be_accepted(
    settings: Settings, adjustments: Adjustments, found: Finding, options: list[str], remedy: dict[str, Any]
) -> None:
    adjustments("accept", found.finding_id, "--reason", "seen", *options)

    (entry,) = entries(settings)["adjustment"]
    assert {name: entry[name] for name in ("factor", "value", "missing") if name in entry} == remedy
    assert (entry["reason"], entry["who"]) == ("seen", getpass.getuser())
    assert len(read_ledger(settings.ledger_path, settings.panel_spec).corrections) == 1


def test_the_list_shows_what_the_next_run_will_make_of_decisions(
    settings: Settings, adjustments: Adjustments
) -> None:
    adjustments("veto", POINT.finding_id, "--reason", "a real sale", "--who", "m.rossi")
    adjustments("accept", BLOCK.finding_id, "--who", "m.rossi")

    rows = listed(adjustments("list", "--format", "csv"))
    shown = adjustments("list")

    own = next(row for row in rows.values() if row["origin"] == "steward")
    assert {name: (rows[name]["status"], rows[name]["published"]) for name in rows} == {
        POINT.finding_id: ("vetoed", "False"),
        BLOCK.finding_id: ("overruled", "False"),
        ZEROS.finding_id: ("proposed", "True"),
        own["adjustment_id"]: ("applied", "False"),
    }
    assert (own["finding_id"], own["who"]) == (BLOCK.finding_id, "m.rossi")
    assert "vetoed *" in shown.stdout
    assert "* from the next run on" in shown.stderr


def test_a_veto_needs_a_reason(settings: Settings, adjustments: Adjustments) -> None:
    result = adjustments("veto", POINT.finding_id)

    assert result.exit_code == 2
    assert not settings.ledger_path.exists()


@pytest.mark.parametrize(
    ("beginning", "told"),
    [("zz", "There is no detector's adjustment named 'zz'"), ("", "Give more of the id")],
    ids=["unknown", "ambiguous"],
)
def test_an_id_must_be_that_of_one_finding(
    settings: Settings, adjustments: Adjustments, beginning: str, told: str
) -> None:
    result = adjustments("accept", beginning)

    assert result.exit_code == 1
    assert told in result.stderr
    assert all(found.finding_id in result.stderr for found in (BLOCK, POINT, ZEROS))
    assert not settings.ledger_path.exists()


def test_what_was_accepted_is_not_accepted_twice(settings: Settings, adjustments: Adjustments) -> None:
    adjustments("accept", BLOCK.finding_id)
    before = settings.ledger_path.read_bytes()

    result = adjustments("accept", BLOCK.finding_id)

    assert result.exit_code == 1
    assert "concerns the same as adjustment 1" in result.stderr
    assert settings.ledger_path.read_bytes() == before


def test_before_anything_is_published_the_ledger_can_be_listed_but_nothing_accepted(
    adjustments: Adjustments, tmp_path: Path
) -> None:
    result = adjustments("list")
    refused = adjustments("accept", "abc")

    assert (result.exit_code, result.stderr) == (0, "There are no such adjustments.\n")
    assert refused.exit_code == 1
    assert "Nothing has been published" in refused.stderr


def test_a_ledger_is_checked(settings: Settings, adjustments: Adjustments) -> None:
    without = adjustments("check")
    adjustments("veto", POINT.finding_id, "--reason", "a real sale")
    valid = adjustments("check")
    settings.ledger_path.write_text("[[veto]]\nwhere = { shop = 1 }\nsince = 2016-01-03\n")
    wrong = adjustments("check")

    assert (without.exit_code, valid.exit_code, wrong.exit_code) == (0, 0, 1)
    assert "There is no ledger" in without.stderr
    assert "is valid: 0 adjustments and 1 vetoes" in valid.stderr
    assert "has 5 problems" in wrong.stderr


# Runs --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_ledger_stops_a_run_where_it_is_wrong_and_changes_the_values_where_it_is_not(
    copied: Landed,
) -> None:
    settings = copied.settings
    before = current(settings.published_path)
    reported = before.read("turnover")
    weeks = sorted(reported["week"].unique())
    store, department = reported.loc[reported["week"] == weeks[-1], ["store", "department"]].iloc[0].tolist()
    settings.ledger_path.write_text("[[adjustment]]\nfactor = 0\n")

    with pytest.raises(TurnoverError, match="factor: 0 is out of range"):
        bring_up_to_date(settings, copied.folder, quiet)

    assert current(settings.published_path).name == before.name
    decided = "reason = 'a broken feed'\nwho = 'm.rossi'\nwhen = 2020-01-01\n"
    settings.ledger_path.write_text(
        f"[[adjustment]]\nwhere = {{ department = {department} }}\nsince = {weeks[-2]}\nuntil = {weeks[-2]}\n"
        f"factor = 2.0\n{decided}\n[[adjustment]]\nwhere = {{ store = {store} }}\nsince = {weeks[-6]}\n"
        f"missing = true\n{decided}"
    )

    outcome = bring_up_to_date(settings, copied.folder, quiet)

    assert outcome.refreshed
    assert not bring_up_to_date(settings, copied.folder, quiet).changed
    after = current(settings.published_path)
    turnover = after.read("turnover")
    missing = (turnover["store"] == store) & (turnover["week"] >= weeks[-6])
    halved = (turnover["department"] == department) & (turnover["week"] == weeks[-2])
    detected = before.read("turnover")["turnover_adjusted"]  # the placeholder is mended before and after
    expected = detected.where(~halved, turnover["turnover"] / 2).where(~missing)
    assert turnover["turnover"].tolist() == reported["turnover"].tolist()
    assert turnover["turnover_adjusted"].tolist() == pytest.approx(
        expected.tolist(), rel=0, abs=0, nan_ok=True
    )
    steward = after.read("adjustments").query("origin == 'steward'")
    assert sorted(steward["rows"]) == sorted([halved.sum(), missing.sum()])
    assert set(before.read("forecasts")["store"]) - set(after.read("forecasts")["store"]) == {store}
