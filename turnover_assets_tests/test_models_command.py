"""`turnover models`: the list, one version, and changes of the champion by hand."""

import csv
import getpass
import io
import json
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from click.testing import Result
from filelock import FileLock
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core.gate import Decision
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.snapshots import publish
from turnover_assets_tests.model_factories import make_registry

BETTER = Decision(
    True, ("WAPE is 4 % lower.",), (), {"wape_change": -0.04}, pd.DataFrame({"check": ["margin"]})
)
BIASED = Decision(
    False,
    ("Bias is 7 %; the limit is 5 %.",),
    (),
    {"bias": 0.07, "p": float("nan")},
    pd.DataFrame({"check": ["margin", "bias"], "passed": [True, False], "limit": [0.01, None]}),
)


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """Four versions: 1 was champion by hand, 2 is by the gate, 3 is its challenger."""
    registry = make_registry(tmp_path_factory.mktemp("decided") / "mlflow", versions=4)
    registry.promote(1, by="bert", reason="the first one")
    registry.record_decision(2, BETTER)
    registry.record_decision(3, BIASED)
    return registry


@pytest.fixture
def home(decided: ModelRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelRegistry:
    """A copy of it, in the home that the command uses."""
    monkeypatch.setenv("TURNOVER_HOME", str(tmp_path))
    monkeypatch.setattr(getpass, "getuser", lambda: "anna")
    shutil.copytree(decided.folder, tmp_path / "mlflow")
    return ModelRegistry(tmp_path / "mlflow", decided.name)


def models(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == code, result.output
    return result


def publish_forecasts_of(version: int, home: ModelRegistry) -> None:
    with duckdb.connect() as con:
        publish(
            con, home.folder.parent / "published", {}, {"cutoff": "2017-08-05", "model": {"version": version}}
        )


# Looking


def test_the_list_shows_the_newest_first_with_figures_aliases_and_reasons(home: ModelRegistry) -> None:
    lines = models("list").stdout.splitlines()

    assert lines[0].split()[:4] == ["version", "candidate", "trained", "to"]
    assert [line.split()[0] for line in lines[1:]] == ["4", "3", "2", "1"]
    assert lines[1].split()[1:3] == ["seasonal_naive", "2017-08-05"]
    assert "challenger" in lines[2]
    told = "15.00% -1.00% 79.0% refused: Bias is 7 %; the limit is 5 %."
    assert " ".join(lines[2].split()).endswith(told)
    assert "champion" in lines[3]
    assert lines[3].endswith("promoted: WAPE is 4 % lower.")
    assert " until 20" in lines[4]
    assert lines[4].endswith("by bert: the first one")


def test_the_list_as_csv_and_json_says_the_same(home: ModelRegistry) -> None:
    as_csv = list(csv.DictReader(io.StringIO(models("list", "--format", "csv").stdout)))
    as_json = json.loads(models("list", "--format", "json").stdout)

    assert [row["version"] for row in as_csv] == ["1", "2", "3", "4"]
    assert [row["aliases"] for row in as_csv] == ["", "champion", "challenger", ""]
    assert [row["aliases"] for row in as_json] == [[], ["champion"], ["challenger"], []]
    for text, facts in zip(as_csv, as_json, strict=True):
        assert text.keys() == facts.keys()
        plain = {name: "" if value is None else str(value) for name, value in facts.items()}
        assert text | {"aliases": ""} == plain | {"aliases": ""}
    assert as_json[2]["coverage_80"] == 0.79
    assert as_json[2]["coverage_95"] is None


def test_a_list_into_a_file_is_csv_unless_another_format_is_asked_for(
    home: ModelRegistry, tmp_path: Path
) -> None:
    models("list", "--output", str(tmp_path / "a.csv"))
    models("list", "--output", str(tmp_path / "a.json"), "--format", "json")
    models("list", "--output", str(tmp_path / "a.txt"), "--format", "table")

    assert (tmp_path / "a.csv").read_text().startswith("version,candidate,cutoff,")
    assert len(json.loads((tmp_path / "a.json").read_text())) == 4
    assert (tmp_path / "a.txt").read_text() == models("list").stdout


def test_one_version_is_shown_with_figures_checks_parameters_and_changes(home: ModelRegistry) -> None:
    text = models("show", "3").stdout
    facts = json.loads(models("show", "3", "--format", "json").stdout)

    assert text.startswith("Model version 3 (challenger)\n")
    for line in (
        "decision    refused: Bias is 7 %",
        "gate_bias    0.07",
        "wape         0.15",
        "seed          1",
    ):
        assert line in text
    assert [line.split() for line in text.splitlines() if line.startswith(("  margin", "   margin"))] == [
        ["margin", "True", "0.01"]
    ]
    assert facts["metrics"]["gate_p"] is None  # JSON has no word for NaN
    assert facts["checks"][1] == {"check": "bias", "passed": False, "limit": None}
    assert facts["parameters"]["seed"] == "1"
    assert facts["changes"] == []


def test_without_a_number_the_champion_is_shown_with_how_it_became_that(home: ModelRegistry) -> None:
    text = models("show").stdout

    assert text.startswith("Model version 2 (champion)\n")
    assert "UTC: promoted by gate: WAPE is 4 % lower." in text


# Changing


def test_a_version_is_promoted_by_hand_with_who_and_why(home: ModelRegistry) -> None:
    publish_forecasts_of(2, home)

    told = models("promote", "3", "--reason", " the bias is known ").stderr

    assert home.champion_version() == 3
    change = home.details(3).changes[-1]
    assert (change.action, change.by, change.reason) == ("promoted", "anna", "the bias is known")
    assert told == (
        "Version 3 is the champion in place of version 2. What is published is still of version 2: "
        "`turnover run` publishes forecasts of version 3.\n"
    )


def test_a_rollback_goes_back_and_further_back_and_then_says_what_to_do(home: ModelRegistry) -> None:
    models("promote", "4", "--reason", "trial", "--who", "carl")
    publish_forecasts_of(2, home)

    first = models("rollback", "--reason", "the trial is over").stderr
    second = models("rollback", "--reason", "worse in shops").stderr
    last = models("rollback", "--reason", "and again", code=1).stderr

    assert first == (
        "Version 2 is the champion in place of version 4. The published forecasts are its own.\n"
    )
    assert second.startswith("Version 1 is the champion in place of version 2. What is published is still")
    assert "no champion before version 1" in last
    assert "turnover models promote VERSION" in last
    assert [(c.action, c.by) for c in home.details(1).changes] == [
        ("promoted", "bert"),
        ("rolled back", "anna"),
    ]


def test_promoting_the_champion_says_that_nothing_was_changed(home: ModelRegistry) -> None:
    told = models("promote", "2", "--reason", "to be sure").stderr

    assert told == "Version 2 is the champion already; nothing was changed.\n"


def test_nothing_changes_without_a_reason_or_a_version_there_is(home: ModelRegistry) -> None:
    blank = models("promote", "3", "--reason", " ", code=1).stderr
    missing = models("rollback", code=2).stderr
    unknown = models("promote", "9", "--reason", "why not", code=1).stderr

    assert "say why with --reason" in blank
    assert "--reason" in missing
    assert "no model version named '9'. Available: 1, 2, 3, 4" in unknown
    assert home.champion_version() == 2


@pytest.mark.parametrize("arguments", [("promote", "1"), ("rollback",)], ids=["promote", "rollback"])
def test_a_version_that_does_not_fit_is_refused_and_the_champion_stays(
    home: ModelRegistry, arguments: tuple[str, ...]
) -> None:
    (home.files(1) / "model.json").write_text("{}")

    told = models(*arguments, "--reason", "quickly", code=1).stderr

    assert "files of model version 1" in told
    assert "restore them from a backup" in told
    assert home.champion_version() == 2


def test_a_change_waits_for_a_run_under_way(home: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOVER_LOCK_TIMEOUT_SECONDS", "0.2")

    with FileLock(home.folder.parent / "run.lock"):
        told = models("rollback", "--reason", "quickly", code=1).stderr

    assert "a run is under way; waiting for it to end" in told
    assert "another run has been using it" in told
    assert home.champion_version() == 2


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("show",), ("promote", "1", "--reason", "a"), ("rollback", "--reason", "a")],
    ids=lambda arguments: arguments[0],
)
def test_a_home_without_models_is_left_alone_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(tmp_path / "new"))

    told = models(*arguments, code=1).stderr

    assert "There are no models in" in told
    assert "Run `turnover run`." in told
    assert not (tmp_path / "new").exists()
