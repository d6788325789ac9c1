"""Making a model version again from the kept files alone, and the account of what is the same.

What belongs here: landing, cleaning, features, candidates, fit and forecasts once more, in a folder of its
own, each compared with what is recorded. What does not: any of those steps (core), what is recorded
(origin.py), and the lines for people (commands).

Invariants:
    - nothing in the home is changed, and its warehouse is not needed;
    - the same is the same to the last bit.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import joblib
import pandas as pd

from turnover_assets import __version__
from turnover_assets.core import cleaning, training
from turnover_assets.core.backtest import Backtest
from turnover_assets.core.comparison import compare_tables
from turnover_assets.core.features import feature_names
from turnover_assets.core.forecasting import forecast_table
from turnover_assets.core.models import Rows
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.rows import (
    TABLES,
    RowLimits,
    fill_scoring,
    fill_training,
    read_rows,
    series_sql,
)
from turnover_assets.core.windows import recent_cutoffs
from turnover_assets.errors import NoSnapshotError, TurnoverError, UnreadableFileError
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage import landing, manifest
from turnover_assets.storage.comparison import snapshot_names
from turnover_assets.storage.digests import file_sha256
from turnover_assets.storage.kept import KeptFiles, kept_files
from turnover_assets.storage.ledger import read_ledger
from turnover_assets.storage.origin import LEDGER, Origin, library_versions
from turnover_assets.storage.published_model import ORIGIN_FOLDER
from turnover_assets.storage.registry import ModelRegistry, TrainedModel
from turnover_assets.storage.snapshots import Snapshot, lease
from turnover_assets.storage.warehouse import Warehouse

Progress = Callable[[str], None]
Row = dict[str, Any]
TIMED = frozenset({"model.skops"})  # a zip file: the same model written twice gives other bytes
# A model used on newer data has snapshots that its own data cannot make again.
MADE_FROM = ("landed_version", "ledger_version", "data_version", "settings_version")


@dataclass(frozen=True)
class Comparison:
    """One thing that was made again.

    Attributes:
        what: What it is.
        same: Whether it is the same to the last bit.
        figures: What was found, or in what the two differ.
    """

    what: str
    same: bool
    figures: str


@dataclass(frozen=True)
class Reproduction:
    """What came of making a model version again.

    Attributes:
        version: The model version.
        comparisons: What was compared, in the order in which one thing is made from the other.
        surroundings: In what release, libraries and settings are not those of the training: where something
            differs, the likely reasons.
        notes: What else a person should know.
    """

    version: int
    comparisons: tuple[Comparison, ...]
    surroundings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether everything is the same."""
        return all(found.same for found in self.comparisons)


@dataclass(frozen=True)
class _Made:
    """What was made again: versions, the feature rows by table, and the keys of each series."""

    panel: PanelSpec
    data_version: str
    landed_version: str
    rows: Mapping[str, Rows]
    series: pd.DataFrame
    backtest: Backtest


def reproduce(
    registry: ModelRegistry, version: int, settings: Settings, progress: Progress = lambda _: None
) -> Reproduction:
    """Make a model version again and compare it with the one that was registered.

    Args:
        registry: The registry.
        version: Number of the model version.
        settings: The home, and the settings as they are now; the recorded ones are used.
        progress: Told what begins.

    Raises:
        UnknownNameError: There is no such version.
        TurnoverError: Its files were changed, it was trained by a release that recorded too little, or kept
            files are missing; all are listed.
    """
    folder = registry.files(version)
    recorded = TrainedModel.load(folder)
    origin = recorded.origin
    if origin is None:
        raise TurnoverError(
            f"It is not recorded what model version {version} was made from: it was trained by an earlier "
            "release, or the ledger was changed during its run. The next model that `turnover run` trains "
            "can be made again."
        )
    kept = kept_files(settings.home.absolute())
    rows = _kept_rows(kept, origin, version)
    with TemporaryDirectory(prefix="turnover-reproduce-") as temporary:
        again = Path(temporary) / "model"
        again.mkdir()
        warehouse = Warehouse(
            Path(temporary) / "warehouse.duckdb", origin.settings["threads"], settings.memory_limit
        )
        progress(f"landing {len(rows)} kept files")
        _land(warehouse, origin.panel, kept, rows)
        made = _make(warehouse, origin, folder / ORIGIN_FOLDER / LEDGER, progress)
        progress(f"fitting {recorded.candidate.name} on all training rows")
        _fit(recorded, origin, made).save(again)
        progress("forecasting")
        forecasts, notes = _compare_forecasts(
            recorded, version, TrainedModel.load(again), made, settings.published_path
        )
        compared = (
            _compare_landed(recorded, made, len(rows)),
            _compare_data(recorded, made),
            _compare_scores(origin.scores, made.backtest),
            compare_files(folder, again),
            *forecasts,
        )
    return Reproduction(version, compared, tuple(_surroundings(recorded, origin, settings)), tuple(notes))


def _kept_rows(kept: KeptFiles, origin: Origin, version: int) -> list[Row]:
    """The journal's rows of the files that a model was made from.

    Raises:
        TurnoverError: Some are missing or damaged; all are listed.
    """
    journal = {(row["file_no"], row["digest"]): row for row in [*kept.pending(), *kept.records()]}
    problems = []
    for number, digest in origin.landed:
        row, path = journal.get((number, digest)), kept.path(digest)
        if row is None:
            problems.append(f"file {number}, {path}: the journal of what landed does not have it")
        elif not kept.is_whole(digest):
            problems.append(f"{row['name']}: {path} is {'damaged' if kept.has(digest) else 'not there'}")
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise TurnoverError(
            f"Model version {version} cannot be made again, since files that it was made from are not kept "
            f"as they were:\n{listed}\n"
            "Put them back from a backup, or from where they were sent from, under just that path."
        )
    return [journal[key] for key in origin.landed]


def _land(warehouse: Warehouse, panel: PanelSpec, kept: KeptFiles, rows: Sequence[Row]) -> None:
    """Land kept files as they landed before, each read with the panel that it landed with."""
    panels = {panel.digest: panel}
    with warehouse.transaction() as con:
        manifest.prepare(con, panel)
        for row in rows:
            digest = row["panel_digest"]
            if digest not in panels:
                panels[digest] = kept.panel(digest)
            try:
                landing.land_again(con, panels[digest], row, kept.path(row["digest"]))
            except UnreadableFileError as error:
                raise TurnoverError(
                    f"{row['name']} ({kept.path(row['digest'])}) cannot be read as it was when it landed: "
                    f"{error.reason}. Reproduce with the release that it landed with."
                ) from error


def _make(warehouse: Warehouse, origin: Origin, ledger: Path, progress: Progress) -> _Made:
    """Clean and make feature rows, as the assets do."""
    panel, chosen = origin.panel, origin.settings
    repairs = Repairs(read_ledger(ledger, panel), chosen["adjustment_strength"], chosen["alive_periods"])
    limits = RowLimits(chosen["training_share"], chosen["max_training_rows"], chosen["alive_periods"])
    progress("cleaning")
    with warehouse.transaction() as con:
        cleaning.clean_all(con, panel)
        repairs.write(con, panel)
    progress("making features")
    with warehouse.transaction() as con:
        fill_training(con, panel, limits)
        fill_scoring(con, panel, limits)
    with warehouse.transaction() as con:
        cutoffs = recent_cutoffs(con, panel, chosen["backtest_windows"], chosen["alive_periods"])
        who = training.entrants(origin.tuned, feature_names(panel))
        plan = training.Plan(limits, repairs, chosen["seed"], chosen["threads"], origin.tuned)
        series = con.execute(f"{series_sql(panel)} ORDER BY series_id").df()
        versions = (
            cleaning.content_version(con, panel),
            manifest.landed_version(manifest.records(con, panel), panel),
        )
        rows = {name: read_rows(con, panel, name) for name in TABLES}
    found = training.backtest(
        warehouse.transaction, panel, cutoffs, who, plan, lambda news: progress(f"backtest: {news}")
    )
    return _Made(panel, *versions, rows, series, found)


def _fit(recorded: TrainedModel, origin: Origin, made: _Made) -> TrainedModel:
    """The recorded candidate again, with what is recorded of its versions."""
    name, rows, found = recorded.candidate.name, made.rows["training"], made.backtest
    # Other data may leave too few rows for the candidate to take part.
    took_part = name in found.entrants
    candidate = training.unfitted(found, name, origin.tuned) if took_part else recorded.candidate.unfitted()
    return replace(
        recorded,
        candidate=candidate.fit(rows, seed=origin.settings["seed"], threads=origin.settings["threads"]),
        intervals=(found.intervals(name) if took_part else None) or recorded.intervals,
        features=rows.names,
        origin=None,
        backtest=training.promise(found, name) if took_part else recorded.backtest,
    )


def _compare_landed(recorded: TrainedModel, made: _Made, files: int) -> Comparison:
    was, now = recorded.versions["landed_version"], made.landed_version
    return Comparison("landed files", was == now, f"{files} files, " + _was_and_is(was, now))


def _compare_data(recorded: TrainedModel, made: _Made) -> Comparison:
    was, now = recorded.versions["data_version"], made.data_version
    return Comparison("cleaned data", was == now, f"data version {_was_and_is(was, now)}")


def _compare_scores(recorded: Mapping[str, float], found: Backtest) -> Comparison:
    scores = found.scores()
    now = dict(zip(scores["model"], map(float, scores["wape"]), strict=True))
    if list(recorded.items()) == list(now.items()):
        best = next(iter(now))
        figures = f"{len(now)} candidates, best {best} with WAPE {now[best]:.6f}"
        return Comparison("scores", True, figures)
    differing = [name for name in {**recorded, **now} if recorded.get(name) != now.get(name)]
    told = [f"WAPE of {name} {_was_and_is(recorded.get(name), now.get(name))}" for name in differing]
    return Comparison("scores", False, "; ".join(told) or f"order {_was_and_is([*recorded], [*now])}")


def _was_and_is(was: object, now: object) -> str:
    return f"{now}" if was == now else f"recorded {was}, now {now}"


def compare_files(recorded: Path, again: Path) -> Comparison:
    """The model's files byte by byte; where a library writes the time into one, the model that is in them."""
    sides = [_digests(folder) for folder in (recorded, again)]
    names = sorted({*sides[0], *sides[1]})
    differing = [name for name in names if sides[0].get(name) != sides[1].get(name)]
    if not differing:
        return Comparison("model", True, f"{', '.join(names)}: byte for byte")
    models = [TrainedModel.load(folder).candidate for folder in (recorded, again)]
    timed = TIMED.issuperset(Path(name).name for name in differing)
    if timed and joblib.hash(models[0]) == joblib.hash(models[1]):
        same = f"{', '.join(differing)}: value for value (it holds the time)"
        rest = [name for name in names if name not in differing]
        return Comparison("model", True, f"{', '.join(rest)}: byte for byte; {same}")
    return Comparison("model", False, f"{', '.join(differing)}: another content")


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that a model and its components consist of, by path inside its folder."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[0] != ORIGIN_FOLDER:
            found[name.as_posix()] = file_sha256(path)
    return found


def _compare_forecasts(
    recorded: TrainedModel, version: int, model: TrainedModel, made: _Made, published: Path
) -> tuple[list[Comparison], list[str]]:
    """The forecasts of every kept snapshot of the version, and notes on those that cannot be compared."""
    compared, notes = [], []
    for name in snapshot_names(published):
        with suppress(NoSnapshotError), lease(published, name) as snapshot:
            if snapshot.facts.get("model", {}).get("version") != version:
                continue
            if any(str(snapshot.facts.get(fact)) != recorded.versions[fact] for fact in MADE_FROM):
                notes.append(f"snapshot {name} was forecast with it from other data, so it is not compared")
                continue
            compared.append(_compare_snapshot(snapshot, version, model, made))
    if not compared:
        notes.append(f"no snapshot in {published} is of this version and data, so forecasts are not compared")
    return compared, notes


def _compare_snapshot(snapshot: Snapshot, version: int, model: TrainedModel, made: _Made) -> Comparison:
    forecasts = forecast_table(
        made.panel, model.candidate, model.intervals, made.rows["scoring"], made.series
    ).assign(model_version=version)
    path = str(snapshot.path("forecasts")).replace("'", "''")
    with duckdb.connect() as con:
        con.register("again", forecasts)
        keys = (*made.panel.keys, made.panel.time)
        found = compare_tables(con, f"FROM read_parquet('{path}')", "FROM again", keys)
    if found.equal:
        return Comparison(f"forecasts of {snapshot.name}", True, f"{found.rows_a:,} rows, bit for bit")
    columns = ", ".join(f"{column} in {rows:,}" for column, rows in found.changed_by_column.items())
    return Comparison(
        f"forecasts of {snapshot.name}",
        False,
        f"{found.rows_a:,} rows, {found.only_a:,} not made again, {found.only_b:,} new, "
        f"{found.changed:,} changed ({columns or 'no value'})",
    )


def _surroundings(recorded: TrainedModel, origin: Origin, settings: Settings) -> list[str]:
    """In what this release, its libraries and settings are not those that trained the model."""
    notes = []
    if recorded.versions["code_version"] != __version__:
        notes.append(f"trained by release {recorded.versions['code_version']}; this is {__version__}")
    notes += [
        f"trained with {name} {origin.libraries.get(name)}; here is {here}"
        for name, here in library_versions().items()
        if origin.libraries.get(name) != here
    ]
    if (threads := origin.settings["threads"]) != settings.threads:
        notes.append(
            f"trained, and made again, with threads = {threads}; the setting is now {settings.threads}"
        )
    return notes
