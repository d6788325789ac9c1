#!/usr/bin/env python3
"""Qualify a release: the synthetic retailer from landing to forecasts, judged by weeks that it has not seen.

    deploy/qualify.py --command .venv/bin/turnover --files retailer --output this.json
    deploy/qualify.py --image NAME@sha256:… --files retailer --baseline last.json --output this.json

`--files` names the retailer's files; where the folder is not there yet, the release writes them. Releases can
be compared on the same files only, so they are kept with the figures.

The last weeks of the retailer's files are held back. What is left lands in a new home and is forecast; what
was published is compared here, in plain arithmetic, with what was held back. The release passes if

    - every series that is alive has one forecast for each week held back, with ordered bounds;
    - it is better than the same week a year ago;
    - its WAPE is not worse than the last release's on the same files by more than a margin;
    - a second run finds nothing to do and publishes the same.

Needs Python alone, and Docker for an image. Ends with 0 if the release passes, 1 if it does not, 2 if that
cannot be told. The figures are written wherever there are some.
"""

import argparse
import csv
import gzip
import json
import math
import shlex
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from hashlib import sha256
from io import StringIO
from pathlib import Path

HELD_BACK = 8  # weeks; the default panel's horizon
YEAR = timedelta(weeks=52)
ALIVE = timedelta(weeks=4)  # a series that reported since then is forecast
RETAILER = ("--stores", "20", "--departments", "4", "--weeks", "150", "--seed", "11")
MARGIN = 0.05
WEEK, STORE, DEPARTMENT, TURNOVER = "day_id", "but_num_business_unit", "dpt_num_department", "turnover"
Turnover = dict[tuple[str, str, date], float]
# Runs `turnover` with these arguments, in which {files} and {landing} are folders; gives its standard output.
Turn = Callable[..., str]


class NotGoodError(Exception):
    """What was published is not as it should be; says what."""


class CannotTellError(Exception):
    """Whether the release is good cannot be told; says why and what to do."""


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        release: What `turnover --version` says.
        files: SHA-256 over the retailer's files; only figures on the same files can be compared.
        cutoff: The last week that the release has seen.
        forecasts: Number of forecasts that were compared.
        wape: Sum of absolute errors over the sum of turnover.
        wape_year_ago: The same of the same week a year before.
        coverage_80: Share of outcomes inside the 80 % bounds.
        coverage_95: The same for 95 %.
        model_version: Version of the model that made the forecasts.
    """

    release: str
    files: str
    cutoff: str
    forecasts: int
    wape: float
    wape_year_ago: float
    coverage_80: float
    coverage_95: float
    model_version: str


@contextmanager
def local(command: str, home: Path, files: Path, landing: Path) -> Iterator[Turn]:
    """The command of an installation, with a home of its own."""
    yield lambda *arguments: _output(
        ["env", f"TURNOVER_HOME={home}", *shlex.split(command), *_placed(arguments, str(files), str(landing))]
    )


@contextmanager
def contained(image: str, files: Path, landing: Path) -> Iterator[Turn]:
    """The command in an image, hardened as in the stack, with its home in a volume that goes at the end."""
    volume = f"turnover-qualify-{uuid.uuid4().hex[:8]}"
    _output(["docker", "volume", "create", volume])
    fixed = [
        *("docker", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--volume", f"{volume}:/data", "--volume", f"{landing}:/landing:ro"),
        *("--volume", f"{files}:/retailer"),
        # Empty is not set: the embedded Dagster, since there is no Postgres here.
        *("--env", "TURNOVER_HOME=/data", "--env", "TURNOVER_DAGSTER_CONFIG=", image, "turnover"),
    ]
    try:
        yield lambda *arguments: _output([*fixed, *_placed(arguments, "/retailer", "/landing")])
    finally:
        _output(["docker", "volume", "rm", "--force", volume])


def _placed(arguments: Sequence[str], files: str, landing: str) -> list[str]:
    """Arguments of `turnover` with the names of folders as they are where it runs."""
    return [argument.format(files=files, landing=landing) for argument in arguments]


def _output(command: list[str]) -> str:
    """Standard output of a command; what it says on standard error goes on to ours."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CannotTellError(f"`{shlex.join(command)}` ended with {done.returncode}; see above.")
    return done.stdout


def read_turnover(folder: Path) -> Turnover:
    """Turnover by store, department and week from all files that hold some."""
    found: Turnover = {}
    for path in sorted(folder.iterdir()):
        for row in _rows(path):
            if TURNOVER in row:
                found[row[STORE], row[DEPARTMENT], date.fromisoformat(row[WEEK])] = float(row[TURNOVER])
    if not found:
        raise CannotTellError(f"{folder} holds no turnover. Name a folder of `turnover sample`.")
    return found


def _rows(path: Path) -> Iterator[dict[str, str]]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    yield from csv.DictReader(StringIO(content.decode(), newline=""))


def hold_back(source: Path, landing: Path, cutoff: date) -> None:
    """Copy files without the rows after a cutoff; a file that has no other is left out."""
    for path in sorted(source.iterdir()):
        rows = list(_rows(path))
        kept = [row for row in rows if WEEK not in row or date.fromisoformat(row[WEEK]) <= cutoff]
        if not kept:
            continue
        with (landing / path.name.removesuffix(".gz")).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, kept[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files."""
    digest = sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name}\0{sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def measure(release: str, files: str, truth: Turnover, cutoff: date, exported: str) -> Figures:
    """Compare exported forecasts with what was held back.

    Raises:
        NotGoodError: Forecasts lack, are doubled, or their bounds are not ordered.
    """
    rows = list(csv.DictReader(StringIO(exported)))
    _need(rows, "nothing was forecast")
    forecast = {(row["store"], row["department"], date.fromisoformat(row["week"])): row for row in rows}
    _need(len(forecast) == len(rows), f"{len(rows) - len(forecast)} forecasts are doubled")
    _need({row["cutoff"] for row in rows} == {str(cutoff)}, f"not all forecasts are as of {cutoff}")
    alive = {(store, dep) for store, dep, week in truth if cutoff - ALIVE < week <= cutoff}
    weeks = [cutoff + timedelta(weeks=n) for n in range(1, HELD_BACK + 1)]
    wanted = {(*series, week) for series in alive for week in weeks}
    _need(forecast.keys() >= wanted, f"{len(wanted - forecast.keys())} of {len(wanted)} forecasts lack")
    for key, row in forecast.items():
        bounds = [float(row[name]) for name in ("lower_95", "lower_80", "forecast", "upper_80", "upper_95")]
        _need(all(map(math.isfinite, bounds)), f"a forecast of {key} is no number")
        _need(bounds == sorted(bounds), f"bounds of {key} are not ordered: {bounds}")
    outcome = {key: truth[key] for key in wanted if key in truth}
    year_ago = {key: truth.get((*key[:2], key[2] - YEAR), 0.0) for key in outcome}
    return Figures(
        release=release.strip(),
        files=files,
        cutoff=str(cutoff),
        forecasts=len(outcome),
        wape=_wape(outcome, {key: float(forecast[key]["forecast"]) for key in outcome}),
        wape_year_ago=_wape(outcome, year_ago),
        coverage_80=_inside(outcome, forecast, "80"),
        coverage_95=_inside(outcome, forecast, "95"),
        model_version=rows[0]["model_version"],
    )


def _need(holds: object, otherwise: str) -> None:
    if not holds:
        raise NotGoodError(otherwise)


def _wape(outcome: Turnover, forecast: Turnover) -> float:
    errors = sum(abs(value - forecast[key]) for key, value in outcome.items())
    return errors / sum(map(abs, outcome.values()))


def _inside(outcome: Turnover, forecast: dict[tuple[str, str, date], dict[str, str]], level: str) -> float:
    inside = sum(
        float(forecast[key][f"lower_{level}"]) <= value <= float(forecast[key][f"upper_{level}"])
        for key, value in outcome.items()
    )
    return inside / len(outcome)


def objections(figures: Figures, baseline: Figures | None, margin: float) -> Iterator[str]:
    """What speaks against the release.

    Raises:
        CannotTellError: The last release was measured on other files.
    """
    if figures.wape >= figures.wape_year_ago:
        yield f"its WAPE {figures.wape:.4f} is not below that of a year ago, {figures.wape_year_ago:.4f}"
    if baseline is None:
        return
    if figures.files != baseline.files:
        raise CannotTellError(
            f"{baseline.release} was measured on other files. Name them by --files; its release has them."
        )
    allowed = baseline.wape * (1 + margin)
    if figures.wape > allowed:
        yield (
            f"its WAPE {figures.wape:.4f} is worse than that of {baseline.release}, {baseline.wape:.4f}, by "
            f"more than {margin:.0%}; at most {allowed:.4f} would do"
        )


def qualify(turn: Turn, files: Path, landing: Path) -> Figures:
    """Bring the retailer to published forecasts and measure them.

    Raises:
        NotGoodError: What was published is not whole, or a second run changed it.
        CannotTellError: A command failed.
    """
    if not any(files.iterdir()):
        turn("sample", "--output", "{files}", *RETAILER)
    truth = read_turnover(files)
    cutoff = max(week for _, _, week in truth) - timedelta(weeks=HELD_BACK)
    hold_back(files, landing, cutoff)
    turn("run", "--landing", "{landing}")
    exported = turn("export", "forecasts")
    figures = measure(turn("--version"), fingerprint(files), truth, cutoff, exported)
    turn("run", "--landing", "{landing}")
    _need(turn("export", "forecasts") == exported, "a second run published other forecasts")
    return figures


def judge(options: argparse.Namespace, work: Path) -> tuple[Figures, Figures | None, list[str]]:
    """Measure what the options name, write the figures, and hold them against the last release's."""
    baseline = Figures(**json.loads(options.baseline.read_text())) if options.baseline else None
    files, landing = options.files.absolute(), work / "landing"
    landing.mkdir()
    if not files.exists():
        files.mkdir(parents=True)
        files.chmod(0o777)  # a container is another user
    used = contained(options.image, files, landing) if options.image else None
    with used or local(options.command, work / "home", files, landing) as turn:
        figures = qualify(turn, files, landing)
    options.output.write_text(json.dumps(asdict(figures), indent=2) + "\n")
    return figures, baseline, list(objections(figures, baseline, options.margin))


def main(arguments: Sequence[str] | None = None) -> int:
    """Qualify what the arguments name; gives the exit code."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="turnover-qualify-") as folder:
        Path(folder).chmod(0o755)
        try:
            figures, baseline, against = judge(options, Path(folder))
        except NotGoodError as error:
            against = [str(error)]
        except (CannotTellError, OSError, ValueError, TypeError) as error:
            return _say(f"Whether the release passes cannot be told: {error}", 2)
    if against:
        return _say("\n".join(f"The release does not pass: {what}." for what in against), 1)
    last = f"{baseline.release} had {baseline.wape:.4f}" if baseline else "the first that is measured"
    return _say(f"{figures.release} passes: WAPE {figures.wape:.4f} ({last}).", 0)


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"{text}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", help="image to qualify")
    what.add_argument("--command", help="command of an installation to qualify")
    parser.add_argument(
        "--files", type=Path, required=True, help="the retailer's files; written where missing"
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write the figures to")
    parser.add_argument("--baseline", type=Path, help="JSON file with the last release's figures")
    parser.add_argument("--margin", type=float, default=MARGIN, help="how much worse WAPE may be, as a share")
    return parser


if __name__ == "__main__":
    sys.exit(main())
