"""The operations guide, tried as written: each trouble is made, and the guide's own commands are typed.

What belongs here: commands that mend something, in a shell, in the folder above `var`. What does not: those
that only read (test_docs_commands.py).
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from turnover_assets.defs import jobs
from turnover_assets.settings import Settings
from turnover_assets.storage.landed_list import list_files
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.snapshots import current
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import QUICK, Landed, next_week
from turnover_assets_tests.test_docs_commands import OPERATIONS
from turnover_assets_tests.ui_factories import ask, running_ui
from turnover_assets_tests.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def section(heading: str) -> str:
    """The text under a heading of the guide, up to the next heading."""
    text = OPERATIONS.read_text("utf-8")
    found = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,3}} |\Z)", text, flags=re.DOTALL | re.MULTILINE
    )
    assert found, f"docs/operations.md has no heading {heading!r}"
    return found[2]


def block(heading: str, number: int = 0) -> str:
    """A block of commands under a heading."""
    return re.findall(r"^```sh\n(.*?)^```", section(heading), flags=re.DOTALL | re.MULTILINE)[number]


def inline(heading: str, beginning: str) -> str:
    """A command in the running text, or in a table, under a heading."""
    running = re.sub(r"^```.*?^```", "", section(heading), flags=re.DOTALL | re.MULTILINE)
    (command,) = {text for text in re.findall(r"`([^`]+)`", running) if text.startswith(beginning)}
    return " ".join(command.split())


def environment() -> dict[str, str]:
    """A shell's, in which the virtual environment is active and no setting of the tests' own is left."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TURNOVER_")}
    quick = {f"TURNOVER_{name.upper()}": str(value) for name, value in QUICK.items()}
    return kept | quick | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}


def typed(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell makes of commands; a failing one ends it."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def well(commands: str, folder: Path) -> str:
    """What commands print that must all end well."""
    done = typed(commands, folder)
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def shortened(text: str) -> str:
    """Text in one line: the terminal's width is not what the guide speaks of."""
    return " ".join(text.split())


def test_a_file_is_refused(copied: Landed) -> None:
    folder, heading = copied.settings.home.parent, "A file is refused"
    bad = copied.settings.landing_path / "empty.csv"
    bad.write_text(next_week(copied).splitlines()[0] + "\n")
    (copied.settings.landing_path / "good.csv").write_text(next_week(copied))

    met = well("turnover run", folder)  # with work to do otherwise it ends well
    (said,) = re.findall(r"^```\n(refused .*)\n```", section(heading), flags=re.MULTILINE)
    assert said in shortened(met)
    again = typed("turnover run", folder)
    assert (again.returncode, "refused earlier" in again.stderr) == (1, True)
    assert "empty.csv" in well(block(heading), folder)

    bad.write_text(next_week(copied, ahead=2))  # corrected, under the same name
    well("turnover run", folder)
    assert "empty.csv" in set(current(copied.settings.published_path).read("files")["name"])


def test_a_check_holds_up_publishing(copied: Landed) -> None:
    folder, heading = copied.settings.home.parent, "A check holds up publishing"
    before = current(copied.settings.published_path)
    header, *rows = next_week(copied).splitlines()
    (copied.settings.landing_path / "part.csv").write_text(
        "\n".join([header, *rows[: len(rows) // 3]]) + "\n"
    )

    held = typed("turnover run", folder)
    assert held.returncode == 1
    first, check = re.findall(r"^```\n(.*)\n  - (cleaned/\S+ \w+): ", section(heading), flags=re.MULTILINE)[0]
    assert first in shortened(held.stderr)
    assert check in shortened(held.stderr)
    assert current(copied.settings.published_path) == before

    well(inline(heading, "TURNOVER_MINIMUM_COVERAGE"), folder)
    assert current(copied.settings.published_path).facts["cutoff"] > before.facts["cutoff"]


def test_accuracy_drops_and_a_model_is_rolled_back(copied: Landed) -> None:
    folder, registry = copied.settings.home.parent, ModelRegistry.of(copied.settings)
    (copied.settings.landing_path / "next.csv").write_text(next_week(copied))
    well("turnover run --retrain", folder)  # an outcome of what was published, and another model

    assert "wape" in well(block("Accuracy drops"), folder)
    assert (folder / "accuracy.csv").read_text().startswith('"cutoff",')

    first, second = 1, max(facts.version for facts in registry.versions())
    if registry.champion_version() == first:
        by_hand = block("Promote by hand").replace("13", str(second))
        well(by_hand, folder)
    assert registry.champion_version() == second
    assert published_by(copied.settings) == {second}
    well(block("A model must be rolled back"), folder)
    assert registry.champion_version() == first
    assert published_by(copied.settings) == {first}
    reasons = {facts.promotion_reason for facts in registry.versions()}
    assert re.findall(r'--reason "(.*)"', block("A model must be rolled back"))[0] in reasons


def published_by(settings: Settings) -> set[int]:
    """Versions of the models that made the current forecasts."""
    return {int(version) for version in current(settings.published_path).read("forecasts")["model_version"]}


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of so many megabytes, where this user may mount one."""
    with tempfile.TemporaryDirectory() as place:
        options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place]
        if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
            pytest.skip("a small file system cannot be mounted here; it takes root")
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)


def test_the_disk_is_full(copied: Landed) -> None:
    heading = "The disk is full"
    size = int(well(f"du -sm {copied.settings.home}", copied.folder).split()[0])
    with small_disk(size + 80) as folder:
        well(f"cp -r {copied.settings.home} var", folder)
        settings = copied.settings.model_copy(update={"home": folder / "var"})
        old = settings.home / "warehouse.before-2026-01-01T000000.duckdb"  # as a rebuild leaves one
        with old.open("wb") as stream:
            stream.write(bytes(77 << 20))
        before = current(settings.published_path)
        (settings.landing_path / "next.csv").write_text(next_week(copied))

        full = typed("turnover run", folder)
        assert full.returncode == 1
        assert "Make room" in shortened(full.stderr)
        assert current(settings.published_path) == before

        looked = typed("\n".join(block(heading).splitlines()[:-1]), folder)  # without the run at its end
        assert old.name in looked.stdout + looked.stderr
        old.unlink()  # as the guide says, since that was too little
        well(block(heading), folder)
        well(inline(heading, "TURNOVER_KEEP_SNAPSHOTS"), folder)
        assert current(settings.published_path).facts["cutoff"] > before.facts["cutoff"]
        assert "next.csv" in set(list_files(settings.home)["name"])
        found = json.loads(typed("turnover doctor --format json", folder).stdout)
        assert {one["check"] for one in found if one["level"] == "problem"} <= {
            "room"
        }  # which is little here


def at_work(settings: Settings) -> dg.DagsterRun | None:
    """The run that began and has not ended."""
    with dg.DagsterInstance.from_config(str(settings.dagster_path)) as instance:
        runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    return runs[0] if runs else None


def ended_as(settings: Settings, run_id: str) -> dg.DagsterRunStatus | None:
    """The status of a run that has ended."""
    with dg.DagsterInstance.from_config(str(settings.dagster_path)) as instance:
        run = instance.get_run_by_id(run_id)
    return run.status if run and run.is_finished else None


TERMINATE = """mutation End($id: String!) { terminateRun(runId: $id) { __typename } }"""


def test_a_run_hangs(copied: Landed, tmp_path: Path) -> None:
    settings, folder = copied.settings, copied.settings.home.parent
    (settings.landing_path / "next.csv").write_text(next_week(copied))
    told = tmp_path / "told.txt"
    with told.open("w") as stream:
        hanging = subprocess.Popen(["turnover", "run"], cwd=folder, env=environment(), stderr=stream)
    try:
        run = at_work_in_a_step(settings)
        with Warehouse.of(settings).lock():  # what the run waits for does not come
            process = run.tags[jobs.PROCESS_TAG].rpartition(":")[2]
            assert int(process) == hanging.pid
            well(f"kill {process}", folder)
            assert hanging.wait(PATIENCE) == 130
        assert "Stopped. What had landed and was published stays" in told.read_text()
    finally:
        hanging.kill()
        hanging.wait()

    with Warehouse.of(settings).lock(), running_ui(settings, tmp_path / "ui.log") as (_, port):
        run_id = at_work_in_a_step(settings).run_id
        ended = ask(port, TERMINATE, id=run_id)["terminateRun"]["__typename"]
        assert ended == "TerminateRunSuccess"
        wait_until(lambda: ended_as(settings, run_id), "it ends")
        assert ended_as(settings, run_id) is dg.DagsterRunStatus.CANCELED

    well(block("A run was killed"), folder)
    assert "next.csv" in set(current(settings.published_path).read("files")["name"])
    assert at_work(settings) is None


def at_work_in_a_step(settings: Settings) -> dg.DagsterRun:
    """The run that begins, once one of its steps has."""
    wait_until(lambda: at_work(settings) is not None, "a run is at work")
    run = at_work(settings)
    assert run is not None

    def is_in_a_step() -> bool:
        with dg.DagsterInstance.from_config(str(settings.dagster_path)) as instance:
            return bool(instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START))

    wait_until(is_in_a_step, "a step begins")
    return run


def test_back_up_and_restore(copied: Landed, tmp_path: Path) -> None:
    folder, heading = copied.settings.home.parent, "Back up and restore"
    (tmp_path / "backups").mkdir()

    def here(commands: str) -> str:
        return commands.replace("/backups", f"{tmp_path}/backups").replace("/data", f"{tmp_path}/data")

    well(here(block(heading)), folder)
    looked = typed(here(block(heading, 1)), folder)
    assert looked.returncode == 0, looked.stdout + looked.stderr
    restored = current(tmp_path / "data" / "turnover" / "published")
    assert restored.name == current(copied.settings.published_path).name  # nothing had to be made anew
