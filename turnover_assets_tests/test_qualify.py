"""Qualifying a release, and its notes: what passes, what does not, and what cannot be told."""

import importlib.util
import json
import shlex
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from turnover_assets import __version__
from turnover_assets_tests.linters import REPOSITORY


def script(name: str) -> ModuleType:
    """A script of the folder deploy, as a module."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "deploy" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


qualify, release_notes = script("qualify"), script("release_notes")
LAST = date(2030, 3, 2)
CUTOFF = LAST - timedelta(weeks=8)
HEADER = "day_id,but_num_business_unit,dpt_num_department,turnover\n"
COLUMNS = "store,department,cutoff,week,horizon,forecast,lower_80,upper_80,lower_95,upper_95,model_version"


def amount(week: date) -> int:
    return 100 + week.toordinal() % 5 * 10


# A release that forecasts the truth plus an offset. What it is told to do wrong stands in the file `wrong`.
FAKE = """
import sys
from datetime import date, timedelta
from pathlib import Path
here = Path(sys.argv[0]).parent
wrong, words = (here / "wrong").read_text(), sys.argv[1:]
(here / "calls").open("a").write(" ".join(words) + "\\n")
amount = lambda week: 100 + week.toordinal() % 5 * 10
last = date(2030, 3, 2)
cutoff = last - timedelta(weeks=8)
if words[0] == "sample":
    weeks = [last - timedelta(weeks=n) for n in range(120)]
    rows = [f"{week},1,{dep},{amount(week)}" for week in reversed(weeks) for dep in (7, 8)]
    folder = Path(words[words.index("--output") + 1])
    header = "day_id,but_num_business_unit,dpt_num_department,turnover\\n"
    (folder / "a.csv").write_text(header + "\\n".join(rows))
    (folder / "stores.csv").write_text("but_num_business_unit,but_postcode\\n1,59000\\n")
elif words[0] == "run" and wrong == "fails":
    sys.exit(1)
elif words[0] == "run":
    landed = Path(words[words.index("--landing") + 1])
    newest = max(line.split(",")[0] for line in (landed / "a.csv").read_text().splitlines()[1:])
    assert newest == str(cutoff), newest
    assert (landed / "stores.csv").read_text() == "but_num_business_unit,but_postcode\\n1,59000\\n"
elif words[0] == "--version":
    print("turnover-assets 1.2.3")
else:
    runs = (here / "calls").read_text().count("run --landing")
    print("store,department,cutoff,week,horizon,forecast,lower_80,upper_80,lower_95,upper_95,model_version")
    for dep in (7, 8):
        for n in range(1, 9):
            week = cutoff + timedelta(weeks=n)
            value = amount(week) + {"far": 90, "second run": runs, "worse": 6}.get(wrong, 5)
            low, high = (value, value - 1) if wrong == "bounds" else (value - 20, value + 20)
            line = f"1,{dep},{cutoff},{week},{n},{value},{low},{high},{low - 9},{high + 9},4"
            if not (wrong == "lacks" and n == 8 and dep == 8):
                print(line)
            if wrong == "doubled" and n == 8:
                print(line)
            if wrong == "no number" and n == 8:
                print(line.replace(f",{value},", ",nan,").replace("1,", "2,", 1))
"""


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Qualifies the fake release, told what to do wrong; gives the exit code and the figures."""
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "turnover.py").write_text(FAKE)

    def run(
        wrong: str = "", *more: object, what: tuple[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        (folder / "wrong").write_text(wrong)
        (folder / "calls").write_text("")
        output = tmp_path / "figures.json"
        output.unlink(missing_ok=True)
        command = what or ("--command", shlex.join([sys.executable, str(folder / "turnover.py")]))
        code = qualify.main(
            [*command, "--files", str(tmp_path / "retailer"), "--output", str(output), *map(str, more)]
        )
        return code, json.loads(output.read_text()) if output.is_file() else {}

    return run


def test_a_good_release_passes_and_its_figures_are_right(
    release: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code, figures = release()

    assert (code, "turnover-assets 1.2.3 passes" in capsys.readouterr().err) == (0, True)
    weeks = [CUTOFF + timedelta(weeks=n) for n in range(1, 9)]
    assert figures["forecasts"] == 16
    assert figures["wape"] == pytest.approx(5 * 8 / sum(map(amount, weeks)))
    year_ago = sum(abs(amount(week) - amount(week - timedelta(weeks=52))) for week in weeks)
    assert figures["wape_year_ago"] == pytest.approx(year_ago / sum(map(amount, weeks)))
    assert (figures["coverage_80"], figures["coverage_95"]) == (1, 1)
    assert (figures["cutoff"], figures["model_version"]) == (str(CUTOFF), "4")


@pytest.mark.parametrize(
    ("wrong", "told"),
    {
        "far": "is not below that of a year ago",
        "bounds": "are not ordered",
        "lacks": "1 of 16 forecasts lack",
        "doubled": "2 forecasts are doubled",
        "no number": "is no number",
        "second run": "a second run published other forecasts",
    }.items(),
)
def test_a_release_that_is_wrong_does_not_pass(
    release: Any, capsys: pytest.CaptureFixture[str], wrong: str, told: str
) -> None:
    code, _ = release(wrong)

    assert code == 1
    assert told in capsys.readouterr().err


def test_a_release_that_is_worse_than_the_last_by_more_than_the_margin_does_not_pass(
    release: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, last = release()
    baseline = tmp_path / "last.json"
    baseline.write_text(json.dumps(last))

    assert release("", "--baseline", baseline)[0] == 0
    assert release("worse", "--baseline", baseline, "--margin", 0.25)[0] == 0
    capsys.readouterr()
    code, figures = release("worse", "--baseline", baseline, "--margin", 0.15)

    assert code == 1
    assert figures["wape"] == pytest.approx(last["wape"] * 6 / 5)
    assert "is worse than that of turnover-assets 1.2.3" in capsys.readouterr().err


def test_what_cannot_be_told_is_neither(
    release: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, last = release()
    baseline = tmp_path / "last.json"

    assert release("fails")[0] == 2
    assert "ended with 1" in capsys.readouterr().err
    assert release("", "--baseline", tmp_path / "nowhere.json")[0] == 2
    baseline.write_text(json.dumps(last | {"files": "others"}))
    assert release("", "--baseline", baseline)[0] == 2
    assert "was measured on other files" in capsys.readouterr().err
    baseline.write_text(json.dumps({"wape": 1}))
    assert release("", "--baseline", baseline)[0] == 2
    (tmp_path / "retailer" / "a.csv").write_text("another,header\n1,2\n")
    assert release()[0] == 2
    assert "holds no turnover" in capsys.readouterr().err


def test_an_image_is_run_hardened_with_a_home_that_goes_at_the_end(
    release: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `docker` that notes how it is called and runs the fake release in the folders that are mounted."""
    fake = tmp_path / "bin" / "docker"
    fake.parent.mkdir()
    turnover, log = tmp_path / "release" / "turnover.py", tmp_path / "docker.log"
    fake.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\nwords = sys.argv[1:]\n"
        f"open({str(log)!r}, 'a').write(' '.join(words) + '\\n')\n"
        "if words[0] == 'run':\n"
        "    volumes = [after.split(':') for flag, after in zip(words, words[1:]) if flag == '--volume']\n"
        "    mounts = {inside: outside for outside, inside, *_ in volumes}\n"
        "    words = [mounts.get(word, word) for word in words[words.index('turnover') + 1:]]\n"
        f"    sys.exit(subprocess.call([{sys.executable!r}, {str(turnover)!r}, *words]))\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent))

    code, figures = release(what=("--image", "name@sha256:0"))

    assert (code, figures["forecasts"]) == (0, 16)
    created, *runs, removed = log.read_text().splitlines()
    volume = created.removeprefix("volume create ")
    assert removed == f"volume rm --force {volume}"
    assert len(runs) == 6
    for run in runs:
        for wanted in (
            "--rm",
            "--network none",
            "--read-only",
            "--cap-drop ALL",
            f"{volume}:/data",
            ":/landing:ro",
        ):
            assert wanted in run
        assert run.partition(" turnover ")[0].endswith("name@sha256:0")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_this_release_passes(tmp_path: Path) -> None:
    files = tmp_path / "retailer"
    sample = "--stores 6 --departments 2 --weeks 130 --seed 11"
    quick = "env TURNOVER_TRAINING_SHARE=0.05 TURNOVER_BACKTEST_WINDOWS=1"
    command = f"{quick} {sys.executable} -m turnover_assets.cli"
    home = qualify.local(command, tmp_path / "elsewhere", files, files)
    with home as turn:
        turn("sample", "--output", "{files}", *sample.split())

    code = qualify.main(
        ["--command", command, "--files", str(files), "--output", str(tmp_path / "figures.json")]
    )

    assert code == 0
    assert json.loads((tmp_path / "figures.json").read_text())["release"].endswith(__version__)


# Notes -------------------------------------------------------------------------------------------

CHANGELOG = (
    "# Changelog\n\n## [Unreleased]\n\n"
    "## [1.0.0] - 2030-01-04\n\n### Added\n\n- New.\n\n## [0.1.0]\n\n- Old.\n"
)


@pytest.mark.parametrize(
    ("version", "notes"),
    [("1.0.0", "### Added\n\n- New."), ("0.1.0", "- Old."), ("Unreleased", ""), ("2.0.0", "")],
)
def test_the_notes_of_a_release_are_its_part_of_the_changelog(version: str, notes: str) -> None:
    assert release_notes.section(CHANGELOG, version) == notes


def test_tag_package_and_changelog_must_agree() -> None:
    assert release_notes.problems("v1.0.0", "1.0.0", "- New.") == []
    assert len(release_notes.problems("1.0", "1.0.1", "")) == 3


def test_the_repository_s_own_version_and_changelog_can_be_read(tmp_path: Path) -> None:
    source = (REPOSITORY / "turnover_assets" / "__init__.py").read_text("utf-8")

    assert release_notes.version_of_package(source) == __version__
    assert release_notes.section((REPOSITORY / "CHANGELOG.md").read_text("utf-8"), __version__)
    assert release_notes.main(["v99.0.0", "--output", str(tmp_path / "notes.md")]) == 1
    assert not (tmp_path / "notes.md").exists()
