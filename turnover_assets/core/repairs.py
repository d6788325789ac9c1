"""Repairs: what is found wrong with the history and what is decided on it, as of a cutoff.

What belongs here: detectors, ledger and strength put together, the same way for the newest cutoff and for
past ones. What does not: detectors (anomalies), decisions and their SQL (adjustments.py).
"""

from dataclasses import dataclass

import duckdb

from turnover_assets.core.adjustments import Adjustment, apply, decide, write_adjustments
from turnover_assets.core.anomalies.detect import detect
from turnover_assets.core.anomalies.findings import UNCONFIRMED, write_findings
from turnover_assets.core.calendar import label_of
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.ledger import Ledger
from turnover_assets.errors import NothingToForecastError
from turnover_assets.panel import PanelSpec


@dataclass(frozen=True)
class Repairs:
    """How the history is repaired.

    Attributes:
        ledger: The steward's entries.
        strength: Strength of evidence from which a detector's adjustment applies by itself.
        alive: A series has stopped where it has no value in so many periods.
    """

    ledger: Ledger
    strength: float
    alive: int

    def write(self, con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> None:
        """Find and decide as of the newest cutoff: cleaned.findings, cleaned.adjustments, adjusted values.

        A history too short to forecast from is too short to be judged as well.
        """
        try:
            found = detect(con, panel, last_period(con, panel), self.alive)
        except NothingToForecastError:
            found = []
        write_findings(con, panel, found)
        decided = decide(found, self.ledger, self.strength)
        apply(con, panel, decided)
        write_adjustments(con, panel, decided)

    def as_of(self, con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: int) -> list[Adjustment]:
        """The adjustments that could be decided on at a past cutoff (period index).

        Blocks of single series are left out where they could only be proposed, which changes no value.
        """
        found = detect(con, panel, cutoff, self.alive, alone=self.strength < UNCONFIRMED)
        return decide(found, self.ledger.known_by(label_of(panel, cutoff)), self.strength)
