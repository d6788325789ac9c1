"""The `turnover` command, as people and scripts call it."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.storage.landed_list import list_files
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.factories import QUICK, Landed, next_week

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
MODULE = [sys.executable, "-m", "turnover_assets.cli"]
NOBODY = 65534

Turnover = Callable[..., Result]


@pytest.fixture
def turnover(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Turnover:
    """Call the command in a home of its own, or in the one given."""

    def call(*arguments: str | Path, home: Path = tmp_path / "var", **settings: str) -> Result:
        for name, value in {"HOME": home, **{k.upper(): v for k, v in QUICK.items()}, **settings}.items():
            monkeypatch.setenv(f"TURNOVER_{name}", str(value))
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Help --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda words: "".join(words))
def test_every_command_explains_itself(turnover: Turnover, command: tuple[str, ...]) -> None:
    result = turnover(*command, "--help")

    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    assert result.stderr == ""


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from turnover_assets.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'dagster', 'mlflow', 'pandas', 'duckdb', 'pyarrow', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


# Export ------------------------------------------------------------------------------------------


def test_an_export_to_standard_output_is_the_csv_and_nothing_else(
    turnover: Turnover, plain: Landed, tmp_path: Path
) -> None:
    home, file = plain.settings.home, tmp_path / "forecasts.csv"

    shown = turnover("export", "forecasts", home=home)
    written = turnover("export", "forecasts", "--output", file, home=home)

    expected = current(plain.settings.published_path).read("forecasts")
    assert (shown.exit_code, written.exit_code) == (0, 0)
    assert shown.stdout_bytes == file.read_bytes()
    assert shown.stderr == ""
    read = pd.read_csv(io.BytesIO(shown.stdout_bytes))
    assert list(read.columns) == list(expected.columns)
    assert read["forecast"].to_numpy() == pytest.approx(expected["forecast"].to_numpy())
    assert read["week"].tolist() == expected["week"].astype(str).tolist()


def test_an_export_to_parquet_keeps_the_types(turnover: Turnover, plain: Landed, tmp_path: Path) -> None:
    file = tmp_path / "forecasts.parquet"

    result = turnover(
        "export", "forecasts", "--format", "parquet", "--output", file, home=plain.settings.home
    )

    expected = current(plain.settings.published_path).read("forecasts")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "forecasts as of " in result.stderr
    pd.testing.assert_frame_equal(pd.read_parquet(file), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["forecasts.parquet"]


def test_an_unknown_table_is_answered_with_those_there_are(
    turnover: Turnover, plain: Landed, tmp_path: Path
) -> None:
    result = turnover("export", "forecast", "--output", tmp_path / "x.csv", home=plain.settings.home)

    assert result.exit_code == 1
    assert "no published table named 'forecast'" in result.stderr
    for name in current(plain.settings.published_path).facts["tables"]:
        assert name in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "x.csv").exists()


def test_an_export_before_anything_was_published_says_what_to_do(turnover: Turnover, tmp_path: Path) -> None:
    result = turnover("export", "forecasts")

    assert result.exit_code == 1
    assert "Run `turnover run` first" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
@pytest.mark.parametrize("target", ["missing/x", "folder"])
def test_an_output_that_cannot_be_written_is_one_message(
    turnover: Turnover, plain: Landed, tmp_path: Path, target: str, file_format: str
) -> None:
    (tmp_path / "folder").mkdir()

    result = turnover(
        "export",
        "forecasts",
        "--format",
        file_format,
        "--output",
        tmp_path / target,
        home=plain.settings.home,
    )

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert str(tmp_path / target) in result.stderr
    assert "cannot be written (" in result.stderr
    assert ".partial" not in result.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_a_reader_that_stops_early_is_no_error(plain: Landed) -> None:
    environment = {**os.environ, "TURNOVER_HOME": str(plain.settings.home)}
    with subprocess.Popen(
        [*MODULE, "export", "turnover"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        complaint = process.stderr.read()

    assert (process.returncode, complaint) == (0, b"")


# Settings and panel ------------------------------------------------------------------------------


def test_wrong_settings_are_all_named(turnover: Turnover) -> None:
    result = turnover("run", THREADS="0", SEED="x")

    assert result.exit_code == 1
    assert "TURNOVER_THREADS" in result.stderr
    assert "TURNOVER_SEED" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_panel_file_is_answered_with_all_its_problems(turnover: Turnover, tmp_path: Path) -> None:
    panel = tmp_path / "panel.toml"
    panel.write_text('name = "x"\nhorizon = 0\ncolour = "red"\n[series]\nname = "sales"\n')

    result = turnover("run", PANEL=str(panel))

    assert result.exit_code == 1
    assert str(panel) in result.stderr
    for problem in ("horizon", "colour", "series.keys", "series.time", "series.target"):
        assert f"  - {problem}" in result.stderr
    assert not (tmp_path / "var" / "warehouse.duckdb").exists()


# Sample ------------------------------------------------------------------------------------------

SMALL = ("--stores", "3", "--departments", "2", "--weeks", "60")


@pytest.mark.parametrize("defects", [(), ("--defects",)], ids=["clean", "defects"])
def test_the_same_seed_gives_the_same_sample(
    turnover: Turnover, tmp_path: Path, defects: tuple[str, ...]
) -> None:
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    results = [
        turnover("sample", "--output", folder, *SMALL, "--seed", seed, *defects)
        for folder, seed in ((first, "1"), (second, "1"), (first, "1"), (other, "2"))
    ]

    assert [result.exit_code for result in results] == [0, 0, 0, 0]
    assert contents(first) == contents(second)
    assert contents(first) != contents(other)


def test_a_sample_replaces_no_file_and_adds_none_beside_one_that_differs(
    turnover: Turnover, tmp_path: Path
) -> None:
    turnover("sample", "--output", tmp_path / "made", *SMALL)
    name = sorted(contents(tmp_path / "made"))[-1]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / name).write_text("mine")

    result = turnover("sample", "--output", tmp_path / "own", *SMALL)

    assert result.exit_code == 1
    assert f"{name} exists with other content" in result.stderr
    assert contents(tmp_path / "own") == {name: b"mine"}


# Run ---------------------------------------------------------------------------------------------


def test_a_run_accounts_for_what_it_did_and_a_second_one_says_that_nothing_is_new(
    turnover: Turnover, copied: Landed
) -> None:
    rows = next_week(copied).splitlines()
    rows[1] = rows[1].rsplit(",", 1)[0] + ",a lot"
    (copied.folder / "new.csv").write_text("\n".join(rows) + "\n")
    (copied.folder / "bad.csv").write_text("a,b\n1,2\n")
    (copied.folder / "a.csv").symlink_to("/proc/self/mem")  # opens, but cannot be read at its start

    first = turnover("run", "--landing", copied.folder, home=copied.settings.home)
    second = turnover("run", "--landing", copied.folder, home=copied.settings.home)

    facts = current(copied.settings.published_path).facts
    assert (first.exit_code, first.stdout) == (0, "")
    lines = first.stderr.splitlines()
    assert "refused a.csv: cannot be read (" in first.stderr
    assert any(line.startswith("refused bad.csv: ") and "fits no known kind" in line for line in lines)
    assert f"Files      1 landed ({len(rows) - 1} rows), 2 refused, 1 with content that had" in first.stderr
    assert (
        f"{facts['tables']['turnover']['rows']:,} accepted, {facts['rejected_rows']} rejected" in first.stderr
    )
    wape, naive = facts["model"]["wape"], facts["model"]["wape_seasonal_naive"]
    assert f"WAPE       {wape:.1%} in its backtest (seasonal naive {naive:.1%})" in first.stderr
    assert "Training   Not due: the newest model is 1 of 8 periods old; " in first.stderr
    assert f"Published  {copied.settings.published_path / facts['id']}" in lines
    assert "not_a_number (row rejected), e.g. new.csv line 2: " in first.stderr
    assert second.exit_code == 1
    assert "Nothing new: everything is up to date, but for the files refused." in second.stderr
    assert "refused earlier bad.csv: " in second.stderr
    assert "refused bad.csv" not in second.stderr


def test_a_run_whose_new_files_were_all_refused_fails(turnover: Turnover, copied: Landed) -> None:
    before = current(copied.settings.published_path).name
    (copied.folder / "empty.csv").write_text("")
    other = copied.folder / "other.csv"
    other.write_text("a,b\n1,2\n")

    result = turnover("run", "--landing", copied.folder, home=copied.settings.home)
    again = turnover("run", "--landing", copied.folder, home=copied.settings.home)
    other.unlink()
    (copied.folder / "empty.csv").unlink()
    taken_away = turnover("run", "--landing", copied.folder, home=copied.settings.home)

    assert (result.exit_code, again.exit_code, taken_away.exit_code) == (1, 1, 0)
    assert "Nothing new: everything is up to date.\n" in taken_away.stderr
    assert "refused empty.csv: " in result.stderr
    assert "refused other.csv: " in result.stderr
    assert "0 landed (0 rows), 2 refused" in result.stderr
    assert current(copied.settings.published_path).name == before


def test_a_run_with_nothing_to_forecast_says_why(turnover: Turnover, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")

    result = turnover("run", "--landing", tmp_path)

    assert result.exit_code == 1
    assert "bad.csv: " in result.stderr
    assert "TURNOVER_PANEL" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_list_of_files_is_there_before_anything_was_published(turnover: Turnover, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "stores.csv").write_text(
        "but_num_business_unit,but_postcode,but_latitude,but_longitude,but_region_idr_region,zod_idr_zone_dgr\n"
        "1,59000,50.6,3.0,1,1\n"
    )

    before = turnover("files")
    turnover("run", "--landing", tmp_path)
    listed, refused = turnover("files"), turnover("files", "--refused")

    assert before.exit_code == 0
    assert before.stdout.count("\n") == 1
    table = pd.read_csv(io.StringIO(listed.stdout))
    assert table[["name", "status", "rows"]].to_numpy().tolist() == [
        ["bad.csv", "refused", 0],
        ["stores.csv", "accepted", 1],
    ]
    assert pd.read_csv(io.StringIO(refused.stdout))["name"].tolist() == ["bad.csv"]
    assert "fits no known kind" in refused.stdout


def test_the_list_of_files_is_that_of_the_snapshot_once_it_is_published(
    turnover: Turnover, plain: Landed, tmp_path: Path
) -> None:
    turnover("files", "--output", tmp_path / "now.parquet", home=plain.settings.home)

    now, published = pd.read_parquet(tmp_path / "now.parquet"), current(plain.settings.published_path)

    then = published.read("files").assign(landed_at=lambda table: table["landed_at"].dt.tz_convert("UTC"))
    pd.testing.assert_frame_equal(now, then, check_dtype=False)


def test_a_refused_content_that_was_accepted_later_is_listed_once(tmp_path: Path) -> None:
    content = '{"digest": "%s", "status": "%s", "file_no": %d, "name": "a.csv", "extra_columns": null}'
    (tmp_path / "raw" / "journal").mkdir(parents=True)
    for number, status in ((1, "refused"), (2, "accepted")):
        record = json.loads(content % ("d", status, number)) | {
            "landed_at": f"2030-01-0{number}T00:00:00+00:00"
        }
        (tmp_path / "raw" / "journal" / f"{number:08d}.json").write_text(json.dumps(record))

    assert list_files(tmp_path)[["file_no", "status"]].to_numpy().tolist() == [[2, "accepted"]]
    assert list_files(tmp_path, refused=True).empty


def test_a_missing_landing_folder_is_one_message(turnover: Turnover, tmp_path: Path) -> None:
    result = turnover("run", "--landing", tmp_path / "nowhere")

    assert result.exit_code == 1
    (message,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert f"{tmp_path / 'nowhere'} cannot be listed (No such file or directory)" in message
    assert "Traceback" not in result.stderr


# As root, a process that gave up its rights after it loaded what it needs, which others may not read.
AS_NOBODY = (
    "import os, turnover_assets.cli, turnover_assets.reporting, turnover_assets.runner\n"
    f"if os.geteuid() == 0: os.seteuid({NOBODY})\n"
    "turnover_assets.cli.app()"
)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("exists", [True, False], ids=["a home without write permission", "no home"])
def test_a_home_that_cannot_be_written_is_one_message_and_left_as_it_was(
    open_folder: Path, plain: Landed, exists: bool
) -> None:
    home = open_folder / "var"
    if exists:
        shutil.copytree(plain.settings.home, home)
    before = contents(open_folder)
    for path in [*open_folder.rglob("*"), open_folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)

    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "run"],
        env={**os.environ, "TURNOVER_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert f"The data home {home} cannot be used: Permission denied" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert contents(open_folder) == before


# UI ----------------------------------------------------------------------------------------------


def test_a_port_in_use_is_one_message(turnover: Turnover) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        result = turnover("ui", "--port", str(other.getsockname()[1]))

    assert result.exit_code == 1
    assert "cannot be used (Address already in use). Choose another with --port." in result.stderr
