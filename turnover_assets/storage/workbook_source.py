"""Published tables, arranged by the members of a level, as workbooks need them.

What belongs here: opening a snapshot and giving the frames of one member after the other. What does not: how
they are arranged (_workbook_tables.py), and the workbook (core/workbook/).
"""

from datetime import date, datetime
from functools import cached_property
from typing import Self

import duckdb
import pandas as pd

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.workbook.content import Content, Origin
from turnover_assets.errors import NoSnapshotError, UnknownNameError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage import _workbook_tables as tables
from turnover_assets.storage.snapshots import Snapshot

LIVE_CUTOFFS, OUTCOMES, RESTATEMENTS = 26, 53, 200  # the newest, at most


class WorkbookSource:
    """One snapshot's tables in DuckDB's memory, with the member of each series; to be used in a `with`.

    Args:
        snapshot: The snapshot, which must not be removed before the source is left.
        panel: The panel it was published for.
        level: A level of the panel, or `total`.

    Attributes:
        level: The level.
        members: The members of the level that are forecast, as text; whole numbers in order of size.

    Raises:
        UnknownNameError: The panel has no such level.
        NoSnapshotError: The snapshot is of another panel, cannot be read, or has no attributes of the level.
    """

    def __init__(self, snapshot: Snapshot, panel: PanelSpec, level: str) -> None:
        levels = [*panel.level_names, TOTAL]
        if level not in levels:
            raise UnknownNameError("level", level, levels)
        if snapshot.facts["panel"] != panel.name:
            raise NoSnapshotError(
                f"The snapshot {snapshot.name!r} is of the panel {snapshot.facts['panel']!r}, not of "
                f"{panel.name!r}. Point TURNOVER_PANEL to the panel it was made with, or TURNOVER_HOME to "
                "another data home."
            )
        self._snapshot, self._panel, self.level = snapshot, panel, level
        self._con = duckdb.connect(":memory:", config={"threads": 1})  # sums in one order, to the last bit
        try:
            tables.arrange(self._con, snapshot, panel, level)
        except duckdb.Error as error:
            self._con.close()
            raise NoSnapshotError(
                f"The published snapshot {snapshot.name!r} cannot be read ({str(error).splitlines()[0]}). "
                "Run `turnover run` to publish a new one."
            ) from None
        except BaseException:
            self._con.close()
            raise
        self.members = tables.members(self._con)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._con.close()

    @cached_property
    def forecasts(self) -> int:
        """Number of forecasts, of all members."""
        return int(self._con.execute("SELECT count(*) FROM book.forecasts").fetchall()[0][0])

    @cached_property
    def origin(self) -> Origin:
        """The publishing."""
        facts = self._snapshot.facts
        return Origin(
            self._snapshot.name,
            datetime.fromisoformat(facts["created_at"]),
            date.fromisoformat(facts["cutoff"]),
            str(facts["model"]["candidate"]),
            int(facts["model"]["version"]),
            str(facts["data_version"]),
            str(facts["code_version"]),
        )

    def content(self, member: str) -> Content:
        """The frames of a member.

        Raises:
            UnknownNameError: There is no such member.
        """
        if member not in self.members:
            raise UnknownNameError(self.level, member, self.members)
        time, keys = self._panel.time, ", ".join(self._panel.keys)
        return Content(
            panel=self._panel,
            origin=self.origin,
            level=self.level,
            member=member,
            forecasts=self._of("forecasts", member, f"ORDER BY {keys}, horizon"),
            sums=self._of("sums", member, "ORDER BY horizon"),
            history=self._of("history", member, f"ORDER BY {time}"),
            stopped=self._of("stopped", member, f"ORDER BY {keys}"),
            promised=self._of("promised", member, "ORDER BY model, basis"),
            tests=self._of("tests", member, "ORDER BY cutoff, horizon"),
            live=self._of("live", member, f"ORDER BY cutoff DESC LIMIT {LIVE_CUTOFFS}"),
            outcomes=self._of("outcomes", member, f"ORDER BY {time} DESC LIMIT {OUTCOMES}"),
            adjustments=self._of("adjustments", member, "ORDER BY place"),
            checks=self._checks,
            missing=self._of("missing", member, f"ORDER BY {keys}"),
            restatements=self._of(
                "restatements", member, f"ORDER BY landed_at DESC, {time} DESC, {keys} LIMIT {RESTATEMENTS}"
            ),
        )

    @cached_property
    def _checks(self) -> pd.DataFrame:
        return self._con.execute(tables.FAILED_CHECKS).df()

    def _of(self, table: str, member: str, order: str) -> pd.DataFrame:
        found: pd.DataFrame = self._con.execute(
            f"SELECT * EXCLUDE (member) FROM book.{table} WHERE member = ? {order}", [member]
        ).df()
        return found
