"""What one more weekly file costs to ingest, with 1, 10 and 100 times the case study's history behind it.

What belongs here: homes with synthetic histories of those sizes, and the time and peak memory of finding and
landing one file of the case study's size in each: by storage alone, and by a whole run with Dagster's job up
to cleaning. What does not: cleaning and everything after it, which work on the whole history by intention
(case_study_run.py).

The history is made of weekly files, with more series and more weeks as it grows. Its raw rows are inserted
by SQL, with the manifest, the kept files and the partitions that landing would have left. Every file stays
in the landing folder; a first look has read them all.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from turnover_assets import runner
from turnover_assets.defs.partitions import LANDED_FILES
from turnover_assets.embedded import open_instance
from turnover_assets.panel import default_panel
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage import landing, landing_folder, manifest
from turnover_assets.storage.fingerprints import SETTLED_SECONDS
from turnover_assets.storage.home import prepare_home
from turnover_assets.storage.kept import kept_files
from turnover_assets.storage.landing_folder import LandedFile
from turnover_assets.storage.reader import fingerprint
from turnover_assets.storage.warehouse import Warehouse

PANEL = default_panel()
SERIES, DEPARTMENTS = 1_269, 4  # the case study's; not every series has every week
SIZES = {
    1: (1_105, 233),
    10: (3_494, 737),
    100: (11_049, 2_330),
}  # series and weeks that give its rows, times
NEWEST = date(2017, 6, 3)
HEADER = "day_id,but_num_business_unit,dpt_num_department,turnover\n"
AIM = 2.0
STEPS = (
    "find: look into the landing folder",
    "find: compare with the manifest",
    "find: see that all are kept",
    "land: storage alone",
)
# One row for each series and week; a week is a file.
HISTORY = """
INSERT INTO raw.turnover (file_no, line, store, department, week, turnover)
SELECT w + 1, s + 2, CAST(s // $departments AS VARCHAR), CAST(73 + s % $departments AS VARCHAR),
       CAST($first + CAST(7 * w AS INTEGER) AS VARCHAR), CAST(round(hash(w, s) % 1000000 / 100, 2) AS VARCHAR)
FROM range($weeks) AS weeks(w), range($series) AS series(s) ORDER BY w, s
"""


@dataclass(frozen=True)
class Cost:
    """Seconds of one step, and the peak memory of its process in megabytes."""

    seconds: float
    megabytes: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="files added to each history, of which medians")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=SIZES)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turnover-ingestion-") as temporary:
        homes = {size: Path(temporary) / f"{size}x" for size in chosen.sizes}
        for size, home in homes.items():
            cost = in_child(partial(build, home, *SIZES[size]))
            megabytes = (home / "warehouse.duckdb").stat().st_size / 1e6
            rows = SIZES[size][0] * SIZES[size][1]
            print(
                f"{size}x: {rows:,} rows in {SIZES[size][1]} files, warehouse {megabytes:,.0f} MB, made in "
                f"{cost['made'].seconds:.0f} s",
                file=sys.stderr,
            )
        time.sleep(SETTLED_SECONDS + 1)  # the last history's files are as old as those of a real one
        for size, home in homes.items():
            first = in_child(partial(first_look, home))["first look"]
            print(f"{size}x: first look into the folder {first.seconds:.2f} s", file=sys.stderr)
        rounds = [
            {size: one_round(home, number) for size, home in homes.items()} for number in range(chosen.rounds)
        ]
    print(
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the end, medians of {chosen.rounds}\n"
    )
    return print_table(rounds)


def in_child(work: Callable[[], dict[str, float]]) -> dict[str, Cost]:
    """Run steps in a process of their own: the seconds that each gives, with that process's peak memory."""
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(outlet, json.dumps(work()).encode())
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 the parent stops at it
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    os.close(outlet)
    _, status, usage = os.wait4(child, 0)
    with os.fdopen(inlet) as stream:
        answer = stream.read()
    if status:
        sys.exit("a step failed")
    megabytes = usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
    return {name: Cost(seconds, megabytes) for name, seconds in json.loads(answer).items()}


# Histories ---------------------------------------------------------------------------------------


def settings_of(home: Path) -> Settings:
    return load_settings(home=home)


def warehouse_of(home: Path) -> Warehouse:
    settings = settings_of(home)
    return Warehouse(settings.warehouse_path, settings.threads, settings.memory_limit)


def weekly_file(week: date, series: int, salt: int) -> bytes:
    """One week's file; another salt gives other values."""
    rows = (
        f"{week},{s // DEPARTMENTS},{73 + s % DEPARTMENTS},{(s * 7919 + salt * 104729) % 1_000_000 / 100}\n"
        for s in range(series)
    )
    return (HEADER + "".join(rows)).encode()


def build(home: Path, series: int, weeks: int) -> dict[str, float]:
    """A home as it would be after landing a history of weekly files."""
    began, first = time.perf_counter(), NEWEST - timedelta(weeks=weeks - 1)
    settings = settings_of(home)
    prepare_home(settings)
    settings.landing_path.mkdir(parents=True, exist_ok=True)
    kept, landed = kept_files(home), []
    template = weekly_file(date.max, series, 0)
    for number in range(weeks):
        day = first + timedelta(weeks=number)
        content = template.replace(str(date.max).encode(), str(day).encode())
        path = settings.landing_path / f"turnover_{day}.csv"
        path.write_bytes(content)
        digest = sha256(content).hexdigest()
        kept.path(digest).parent.mkdir(parents=True, exist_ok=True)
        kept.path(digest).hardlink_to(path)
        landed.append((number + 1, digest, path.name, str(path), series))
    with warehouse_of(home).transaction() as con:
        manifest.prepare(con, PANEL)
        given = {"departments": DEPARTMENTS, "first": first, "weeks": weeks, "series": series}
        con.execute(HISTORY, given)
        con.executemany(
            "INSERT INTO raw.files (file_no, digest, name, path, row_count, status, table_name, format, "
            "delimiter, final, panel_digest, reader_version, landed_at) "
            "VALUES (?, ?, ?, ?, ?, 'accepted', 'turnover', 'csv', ',', true, ?, ?, ?)",
            [[*row, PANEL.digest, manifest.READER_VERSION, datetime.now(UTC)] for row in landed],
        )
    with open_instance(settings) as instance:
        keys = [LandedFile(Path(path), name, digest).partition_key for _, digest, name, path, _ in landed]
        instance.add_dynamic_partitions(str(LANDED_FILES.name), keys)
    return {"made": time.perf_counter() - began}


# One more file -----------------------------------------------------------------------------------


def one_round(home: Path, number: int) -> dict[str, Cost]:
    """Two more files of the case study's size: one by storage alone, one by a run."""
    return in_child(lambda: by_storage(home, number)) | in_child(lambda: by_run(home, number))


def new_file(home: Path, weeks_on: int) -> LandedFile:
    week = NEWEST + timedelta(weeks=weeks_on)
    path = settings_of(home).landing_path / f"turnover_{week}.csv"
    path.write_bytes(weekly_file(week, SERIES, weeks_on))
    return LandedFile(path, path.name, fingerprint(path))


def first_look(home: Path) -> dict[str, float]:
    settings, began = settings_of(home), time.perf_counter()
    landing_folder.scan(settings.landing_path, settings.fingerprints_path)
    return {"first look": time.perf_counter() - began}


def by_storage(home: Path, number: int) -> dict[str, float]:
    file, settings, warehouse = new_file(home, 2 * number + 1), settings_of(home), warehouse_of(home)
    times = [time.perf_counter()]
    found = landing_folder.scan(settings.landing_path, settings.fingerprints_path)
    times.append(time.perf_counter())
    with warehouse.transaction() as con:
        new = landing.unseen(found, manifest.records(con, PANEL))
    times.append(time.perf_counter())
    assert [one.digest for one in new] == [file.digest]
    assert landing.mend_kept(warehouse, PANEL, found) == []
    times.append(time.perf_counter())
    assert landing.land(warehouse, PANEL, file, "benchmark").rows == SERIES
    times.append(time.perf_counter())
    seconds = [after - before for before, after in pairwise(times)]
    return dict(zip(STEPS, seconds, strict=True)) | {"**all of this**": times[-1] - times[0]}


def by_run(home: Path, number: int) -> dict[str, float]:
    import turnover_assets.definitions  # noqa: F401 so that its imports, several seconds, are not in the time

    file, settings = new_file(home, 2 * number + 2), settings_of(home)
    runner._refresh = lambda *_, **__: (False, "")  # cleaning and what follows it
    began = time.perf_counter()
    outcome = runner.bring_up_to_date(settings, settings.landing_path, lambda _news, _text: None)
    seconds = time.perf_counter() - began
    assert [(record.digest, record.rows) for record in outcome.accepted] == [(file.digest, SERIES)]
    return {"**`turnover run` up to cleaning**": seconds}


def print_table(rounds: list[dict[int, dict[str, Cost]]]) -> int:
    """Medians and ratios to the smallest; 1 where the whole costs more than it may."""
    sizes, steps = list(rounds[0]), list(rounds[0][next(iter(rounds[0]))])
    print("| step | " + " | ".join(f"{size}x" for size in sizes) + " | largest / smallest | peak memory |")
    print("|---|" + "---|" * (len(sizes) + 2))
    missed = 0
    for step in steps:
        seconds = [statistics.median(one[size][step].seconds for one in rounds) for size in sizes]
        memory = [statistics.median(one[size][step].megabytes for one in rounds) for size in sizes]
        ratio = seconds[-1] / seconds[0]
        missed += step.startswith("**") and ratio > AIM
        shown = " | ".join(f"{second:.3f} s" for second in seconds)
        print(f"| {step} | {shown} | {ratio:.1f} | " + ", ".join(f"{m:,.0f}" for m in memory) + " MB |")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
