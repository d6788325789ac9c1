"""Checks of the installation: Python, libraries, settings, panel, schedules, port, clock.

What belongs here: what does not need a home. What does not: the home (home.py) and what is in it.
"""

import json
import re
import socket
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib import metadata

from packaging.markers import Marker
from packaging.requirements import Requirement

from turnover_assets.doctor import Patient, Told, check
from turnover_assets.errors import TurnoverError
from turnover_assets.settings import unknown_variables
from turnover_assets.storage.home import shipped_file
from turnover_assets.storage.home_panel import check_panel
from turnover_assets.storage.snapshots import find_current

PACKAGE = "turnover-assets"
LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: ; ([^\\]+?))? *\\?$", re.MULTILINE)
PORT = 3000
CLOCK_SLACK = timedelta(minutes=5)
NAMES_SHOWN = 5


@check("python")
def python(_patient: Patient) -> Iterator[Told]:
    """The release of Python is one that is supported."""
    here = ".".join(map(str, sys.version_info[:3]))
    wanted = metadata.metadata(PACKAGE)["Requires-Python"]
    if Requirement(f"python{wanted}").specifier.contains(here):
        yield "ok", f"Python {here}"
    else:
        yield (
            "problem",
            f"Python {here}, but {wanted} is needed",
            "Install with such a Python: `make clean run`.",
        )


@check("libraries")
def libraries(_patient: Patient) -> Iterator[Told]:
    """Every library is of the release that was locked and tested; without the lock, of one permitted."""
    lock = shipped_file("requirements.lock")
    wanted = _locked(lock.read_text("utf-8")) if lock.is_file() else _required()
    wrong, missing = [], []
    for name, requirement in wanted.items():
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if not requirement.specifier.contains(here, prereleases=True):
            wrong.append(f"{name} {here} ({requirement.specifier} is meant)")
    basis = "locked" if lock.is_file() else "required"
    if needed := sorted({*missing} & {*_required()}):
        yield "problem", f"not installed: {', '.join(needed)}", "Install again: `make clean run`."
    if wrong:
        shown = ", ".join(wrong[:NAMES_SHOWN]) + (" …" if len(wrong) > NAMES_SHOWN else "")
        yield (
            "warning",
            f"not as {basis}: {shown}",
            "Numbers may differ from those tested; install from the lock.",
        )
    if not wrong and not needed:
        yield "ok", f"{len(wanted) - len(missing)} libraries are as {basis}"


def _locked(text: str) -> dict[str, Requirement]:
    """The pins of a lock file that are meant for this system."""
    return {
        name: Requirement(f"{name}=={version}")
        for name, version, marker in LOCKED.findall(text)
        if not marker or Marker(marker).evaluate()
    }


def _required() -> dict[str, Requirement]:
    """What the package itself asks for, without extras."""
    found = [Requirement(text) for text in metadata.requires(PACKAGE) or []]
    return {r.name: r for r in found if r.marker is None or r.marker.evaluate({"extra": ""})}


@check("settings")
def settings(patient: Patient) -> Iterator[Told]:
    """Every TURNOVER_ variable is a setting and has a value that can be used."""
    if patient.unusable:
        yield "problem", patient.unusable, "Correct the environment variables named; docs/configuration.md."
    for name, nearest in unknown_variables().items():
        meant = f"; is {nearest} meant?" if nearest else ""
        yield "warning", f"{name} is no setting{meant}", "Correct its name or unset it: it has no effect."
    if not patient.unusable and not unknown_variables():
        yield "ok", f"home {patient.settings.home.absolute()}"


@check("panel")
def panel(patient: Patient) -> Iterator[Told]:
    """The panel can be read, and files have landed with it rather than with another one."""
    try:
        spec = patient.settings.panel_spec
    except TurnoverError as error:
        yield "problem", str(error).splitlines()[0], "Correct the panel file that TURNOVER_PANEL names."
        return
    journal = patient.settings.home / "raw" / "journal"
    tables = {_table(text) for text in (p.read_text("utf-8") for p in journal.glob("[!.]*.json"))}
    if foreign := sorted(tables - {*spec.tables, ""}):
        yield (
            "problem",
            f"the home holds files of {', '.join(foreign)}, which the panel {spec.name!r} does not have",
            "Name the panel that it was built with (TURNOVER_PANEL), or another TURNOVER_HOME for this one.",
        )
        return
    try:
        check_panel(patient.settings)
    except TurnoverError as error:
        yield "problem", str(error)
    else:
        yield "ok", f"{spec.name}: {', '.join(spec.tables)}"


def _table(record: str) -> str:
    """The table in a record of the journal; empty where it has none or cannot be read."""
    try:
        return str(json.loads(record).get("table_name") or "")
    except (ValueError, AttributeError):
        return ""


@check("schedules")
def schedules(patient: Patient) -> Iterator[Told]:
    """Schedules are such that they ever come due."""
    from dagster._utils.schedules import is_valid_cron_string

    chosen = patient.settings
    named = {"WEEKLY_SCHEDULE": chosen.weekly_schedule, "HOUSEKEEPING_SCHEDULE": chosen.housekeeping_schedule}
    wrong = [f"TURNOVER_{name} ({text})" for name, text in named.items() if not is_valid_cron_string(text)]
    if wrong:
        yield "problem", f"{', '.join(wrong)} never comes due", "Give cron's five fields, such as 0 6 * * 1."
    else:
        when = f"weekly {chosen.weekly_schedule}, housekeeping {chosen.housekeeping_schedule}"
        yield "ok", f"{when}, {chosen.timezone}"


@check("port of the page")
def port(patient: Patient) -> Iterator[Told]:
    """`turnover ui` could listen, or it does."""
    from turnover_assets.doctor.records import newest_heartbeat

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError as error:
            beat = newest_heartbeat(patient)
            if beat and patient.now - beat < CLOCK_SLACK:
                yield "ok", f"port {PORT} is in use, as it is where `turnover ui` runs"
            else:
                yield (
                    "warning",
                    f"port {PORT}: {error.strerror}",
                    "Use `turnover ui --port` with another one.",
                )
            return
    yield "ok", f"port {PORT} is free"


@check("clock")
def clock(patient: Patient) -> Iterator[Told]:
    """The clock is not before what was published last."""
    snapshot = find_current(patient.settings.published_path)
    if snapshot is None:
        return
    published = datetime.fromisoformat(str(snapshot.facts["created_at"]))
    if published > patient.now + CLOCK_SLACK:
        yield (
            "problem",
            f"what is published was made at {published:%Y-%m-%d %H:%M}, which is in the future",
            "Set this system's clock; sensors, schedules and the age of data go by it.",
        )
    else:
        yield "ok", f"{patient.now:%Y-%m-%d %H:%M} UTC"
