"""Kills: processes ended by SIGKILL at a named step or a random moment, and what is left then.

What belongs here: the work that is killed, the steps at which it is, and the questions that a home must
answer afterwards; for test_kills.py and benchmarks/kill_matrix.py. The product knows nothing of it: the
process that is to be killed puts its own end in front of, or behind, a function of the product.
"""

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from typing import Any

from turnover_assets.core import cleaning
from turnover_assets.panel import default_panel
from turnover_assets.storage import landing, landing_folder, manifest, snapshots
from turnover_assets.storage.kept import KeptFiles, kept_files
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import clean_processes
from turnover_assets_tests.waiting import PATIENCE

PANEL = default_panel()
HEADER = "day_id,but_num_business_unit,dpt_num_department,turnover"
SERIES = "SELECT store, department, week, turnover FROM cleaned.turnover ORDER BY ALL"
KEEP = 2
LAST = 5  # new files of one work

# Where a process is killed: owner and name of a function, and whether before it begins or when it is done.
STEPS: Mapping[str, tuple[Any, str, str]] = {
    "before the transaction": (landing, "land", "before"),
    "in the transaction, before anything": (landing, "prepare", "before"),
    "in the transaction, file copied": (landing, "_land_rows", "before"),
    "in the transaction, rows written": (landing, "_land_rows", "after"),
    "bytes kept, no record": (KeptFiles, "keep", "after"),
    "bytes kept and recorded, before the commit": (landing, "insert_record", "after"),
    "after the commit, record pending": (KeptFiles, "settle", "before"),
    "after the commit": (KeptFiles, "settle", "after"),
    "while cleaning": (cleaning, "clean_static", "after"),
    "while writing the snapshot": (snapshots, "_write_table", "after"),
    "snapshot written, before its name": (Path, "rename", "before"),
    "between name and pointer": (Path, "rename", "after"),
    "pointer written, not moved": (Path, "replace", "before CURRENT"),
    "after the pointer": (Path, "replace", "after CURRENT"),
    "while pruning": (snapshots, "_set_aside", "after"),
}


@dataclass
class Figures:
    """What kills did; all but `kills` and `moments` must stay 0."""

    kills: int = 0
    lost: int = 0
    doubled: int = 0
    torn: int = 0
    unhealed: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)

    @property
    def harm(self) -> int:
        return self.lost + self.doubled + self.torn + self.unhealed

    def add(self, other: "Figures") -> None:
        """Add the figures of other kills."""
        for name in ("kills", "lost", "doubled", "torn", "unhealed", "moments", "told"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


# The work that is killed ---------------------------------------------------------------------------


def write_files(folder: Path, count: int = LAST) -> None:
    """A store list and `count` weekly files, of which each restates a value of the one before."""
    folder.mkdir(parents=True)
    columns = list(PANEL.tables["stores"].values())
    stores = "".join(f"\n{store},0100{store % 10},46.2,5.2,7,4" for store in range(1, 41))
    (folder / "0.csv").write_text(",".join(columns) + stores + "\n")
    for week in range(1, count + 1):
        rows = "".join(
            f"\n2017-06-{3 + 7 * (week % 4):02d},{store},88,{store * week}.5" for store in range(1, 41)
        )
        (folder / f"{week}.csv").write_text(f"{HEADER}{rows}\n")


def work(home: Path, folder: Path, acknowledge: Callable[[str], object]) -> None:
    """Land what is new, clean, publish and prune, as a run does; tells each content once it has landed."""
    warehouse = Warehouse(home / "warehouse.duckdb", threads=1, lock_timeout_seconds=PATIENCE)
    with warehouse.transaction() as con:
        known = manifest.records(con, PANEL)
    found = landing_folder.scan(folder)
    landing.mend_kept(warehouse, PANEL, found)
    for file in landing.unseen(found, known):
        if landing.land(warehouse, PANEL, file, "run").status == "accepted":
            acknowledge(file.digest)
    with warehouse.transaction() as con:
        manifest.prepare(con, PANEL)
        cleaning.clean_all(con, PANEL)
    with warehouse.transaction() as con:
        version = cleaning.content_version(con, PANEL)
        queries = {"turnover": SERIES, "files": manifest.FILES_QUERY}
        snapshots.publish(con, home / "published", queries, {"cutoff": "2017-06-24", "data_version": version})
    snapshots.prune(home / "published", KEEP)


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def end_at(step: str, skip: int) -> None:
    """Make this process end at a step, after passing it `skip` times."""
    owner, name, when = STEPS[step]
    original, passed = getattr(owner, name), [0]

    def ending(*arguments: Any, **options: Any) -> Any:
        due = not when.endswith("CURRENT") or Path(arguments[1]).name == snapshots.CURRENT
        passed[0] += due
        if due and passed[0] > skip and when.startswith("before"):
            _end()
        result = original(*arguments, **options)
        if due and passed[0] > skip:
            _end()
        return result

    setattr(owner, name, ending)


def _killed_work(home: Path, folder: Path, told: Path, step: str | None, skip: int) -> None:
    """Work in a process of its own, which ends at a step or is ended from outside."""
    if step:
        end_at(step, skip)
    with told.open("a") as stream:

        def acknowledge(digest: str) -> None:
            stream.write(f"{digest}\n")
            stream.flush()

        work(home, folder, acknowledge)


def kill_at_step(home: Path, folder: Path, told: Path, step: str, skip: int) -> bool:
    """Whether a process working on a home was killed at a step."""
    child = _child(home, folder, told, step, skip)
    child.join(PATIENCE)
    return child.exitcode == -signal.SIGKILL


def kill_after(home: Path, folder: Path, told: Path, seconds: float) -> bool:
    """Whether a process working on a home was killed some time after it had begun."""
    child = _child(home, folder, told, None, 0)
    child.join(seconds)
    child.kill()
    child.join(PATIENCE)
    return child.exitcode == -signal.SIGKILL


def _child(home: Path, folder: Path, told: Path, step: str | None, skip: int) -> Any:
    child = clean_processes().Process(target=_killed_work, args=(home, folder, told, step, skip))
    child.start()
    return child


# The questions afterwards --------------------------------------------------------------------------


def look(home: Path, acknowledged: Iterable[str], figures: Figures, at: str) -> None:
    """Count what is lost, doubled or torn in a home whose last process was killed."""
    snapshot = snapshots.find_current(home / "published")
    if snapshot is None or not is_whole(snapshot):
        figures.torn += 1
        figures.told.append(f"{at}: CURRENT is torn")
    kept = kept_files(home)
    with Warehouse(home / "warehouse.duckdb").transaction() as con:
        manifest.prepare(con, PANEL)
        con.execute(
            "CREATE TEMP VIEW landed AS "
            "SELECT file_no FROM raw.turnover UNION ALL SELECT file_no FROM raw.stores"
        )
        rows = {
            digest: (noted, found)
            for digest, noted, found in con.execute(
                "SELECT digest, row_count, (SELECT count(*) FROM landed WHERE landed.file_no = f.file_no) "
                "FROM raw.files AS f WHERE status = 'accepted'"
            ).fetchall()
        }
        total = con.execute("SELECT count(*) FROM landed").fetchall()[0][0]
        accepted, contents = con.execute(
            "SELECT count(*), count(DISTINCT digest) FROM raw.files WHERE status = 'accepted'"
        ).fetchall()[0]
    lost = [digest for digest in acknowledged if digest not in rows]
    lost += [digest for digest, (noted, found) in rows.items() if found < noted or not kept.is_whole(digest)]
    journal = [*kept.records(), *kept.pending()]
    lost += sorted(rows.keys() - {row["digest"] for row in journal})
    doubled = total - sum(noted for noted, _ in rows.values()) + accepted - contents
    figures.lost += len(lost)
    figures.doubled += max(0, doubled)
    figures.told += [f"{at}: lost {digest[:8]}" for digest in lost]
    figures.told += [f"{at}: {doubled} rows too many"] * (doubled > 0)


def is_whole(snapshot: snapshots.Snapshot) -> bool:
    """Whether every file of a snapshot has the content that was published."""
    for name, noted in snapshot.files.items():
        with (snapshot.folder / name).open("rb") as stream:
            if file_digest(stream, "sha256").hexdigest() != noted["sha256"]:
                return False
    return True


def healed(home: Path, files: int) -> str | None:
    """What a healing run has left undone, if anything."""
    kept = kept_files(home)
    with Warehouse(home / "warehouse.duckdb").transaction() as con:
        accepted = [r.digest for r in manifest.records(con, PANEL) if r.status == "accepted"]
        version = cleaning.content_version(con, PANEL)
        repeated = con.execute(
            "SELECT count(*) - count(DISTINCT (store, department, t)) FROM cleaned.turnover"
        )
        if repeated.fetchall()[0][0]:
            return "cleaned rows are doubled"
    published = home / "published"
    leftovers = [p.name for p in (*published.glob(".*"), *kept.folder.glob(".*"))]
    records = [row["digest"] for row in kept.records()]
    undone = {
        "files did not land once each": len(accepted) != files or len(set(accepted)) != files,
        "the journal is not the manifest": records != accepted or kept.pending() != [],
        f"leftovers {leftovers}": bool(leftovers),
        "CURRENT is not what is cleaned": snapshots.current(published).facts["data_version"] != version,
        "too many snapshots": len(list(published.glob("2017*"))) > KEEP,
    }
    return next((what for what, wrong in undone.items() if wrong), None)


# Rounds --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """A home with one file published, to be copied for each round, and the folder with all files."""

    home: Path
    folder: Path
    seconds: float  # of one undisturbed work, in a process of its own

    @classmethod
    def made(cls, root: Path) -> "Bench":
        """Make it: a first file published three times over, so that there is something to prune."""
        write_files(root / "first", count=0)
        write_files(root / "files")
        for _ in range(KEEP):
            work(root / "base", root / "first", lambda _digest: None)
        for trial in ("warm-up", "trial"):  # the first also starts the server of processes
            shutil.copytree(root / "base", root / trial)
            began = time.monotonic()
            kill_after(root / trial, root / "files", root / "told", PATIENCE)
        return cls(root / "base", root / "files", time.monotonic() - began)


def play(bench: Bench, root: Path, figures: Figures, dice: random.Random, step: str | None) -> None:
    """One kill on a copy of the home, a look, a healing run, and another look."""
    home, told = root / "home", root / "told"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(bench.home, home)
    told.touch()
    if step:
        repeats = LAST - 1 if STEPS[step][0] in (landing, KeptFiles) else 0
        killed, at = kill_at_step(home, bench.folder, told, step, dice.randint(0, repeats)), step
    else:
        killed = kill_after(home, bench.folder, told, dice.uniform(0.02, bench.seconds))
        at = "at a random moment"
    if not killed:
        return
    figures.kills += 1
    figures.moments[at] += 1
    look(home, told.read_text().split(), figures, at)
    work(home, bench.folder, lambda _digest: None)
    look(home, told.read_text().split(), figures, f"{at}, healed")
    if undone := healed(home, LAST + 1):
        figures.unhealed += 1
        figures.told.append(f"{at}: {undone}")
