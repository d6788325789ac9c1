"""`turnover doctor`: is the installation, and is the data home, as it should be?

What belongs here: what a check is, the register of checks, and running them all. What does not: the checks
(installation.py, home.py, alerts.py, data.py, records.py, deliveries.py, access.py), and showing what they
find (commands/doctor.py).

Invariants:
    - nothing in the home is changed, and no run is kept waiting for longer than a moment;
    - a check that fails itself is a finding like any other: the doctor always finishes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from typing import Literal

from turnover_assets.errors import TurnoverError
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings, usable_settings

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: Name of the check.
        level: `ok`, `warning` (it works, but look at it) or `problem` (something does not work, or will not).
        found: What was found.
        remedy: What to do; empty where all is well.
    """

    check: str
    level: Level
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Patient:
    """What the checks look at.

    Attributes:
        settings: The settings, with defaults where those given cannot be used.
        unusable: What is wrong with the settings given; empty where nothing is.
        deep: Whether to read all that is kept, which takes as long as reading the home.
        now: The present moment.
    """

    settings: Settings
    unusable: str
    deep: bool
    now: datetime

    @classmethod
    def here(cls, *, deep: bool) -> "Patient":
        """This installation with the home that the environment names."""
        return cls(*usable_settings(), deep, datetime.now(UTC))

    @cached_property
    def panel(self) -> PanelSpec | None:
        """The panel; None where it cannot be used, which is a finding of its own."""
        try:
            return self.settings.panel_spec
        except TurnoverError:
            return None

    @property
    def has_home(self) -> bool:
        """Whether the home is there at all; most checks have nothing to look at without."""
        return self.settings.home.is_dir()


Told = tuple[Level, str] | tuple[Level, str, str]  # level, what was found, what to do
Look = Callable[[Patient], Iterator[Told]]
MODULES = ("installation", "home", "alerts", "data", "records", "deliveries", "access")
CHECKS: dict[str, Look] = {}


def check(name: str) -> Callable[[Look], Look]:
    """Enter a check into the register; findings come in the order of the register."""

    def enter(look: Look) -> Look:
        CHECKS[name] = look
        return look

    return enter


def examine(patient: Patient) -> Iterator[Finding]:
    """What every check finds; one that finds nothing has nothing to look at in this home."""
    for module in MODULES:
        import_module(f"{__name__}.{module}")  # which enters its checks into the register
    for name, look in CHECKS.items():
        try:
            found = [Finding(name, *told) for told in look(patient)]
        except TurnoverError as error:
            found = [Finding(name, "problem", str(error))]
        except Exception as error:  # noqa: BLE001  (whatever is broken, the other checks go on)
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            remedy = "Mend what the other findings name first; if this stays, report it with its text."
            found = [Finding(name, "problem", f"the check could not be made: {first}", remedy)]
        yield from found
