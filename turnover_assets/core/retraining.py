"""When to retrain: a policy over a few facts, not every file.

What belongs here: the facts, the limits, and the decision with its sentence. What does not: gathering the
facts (defs/retraining.py) and training.
"""

from dataclasses import asdict, dataclass
from datetime import date

import duckdb
import numpy as np
import numpy.typing as npt

from turnover_assets.core.tables import has_table

RETRAINING = "reports.retraining"
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Policy:
    """Limits of the policy.

    Attributes:
        every: Periods after which a model is trained again anyway.
        changed_share: Share of the history trained on that may differ from it today.
        accuracy_ratio: `live_ratio` over `promised_ratio` from which accuracy counts as lost.
        drifted_share: Share of the features that may have drifted.
        bias: Bias of published forecasts in total, either way, from which they count as off to one side.
        cooldown: Periods for which lost accuracy, bias or drift alone does not ask again; training may not
            have helped.
        evidence: Periods with outcomes that are needed to judge published forecasts.
    """

    every: int
    changed_share: float
    accuracy_ratio: float
    cooldown: int
    evidence: int = 4
    drifted_share: float = 0.3
    bias: float = 0.1


@dataclass(frozen=True)
class Facts:
    """What the policy looks at.

    Attributes:
        unusable: Why there is no champion that could forecast; empty where there is one.
        outdated: In what the newest model was made otherwise than one would be now; empty where in nothing.
        periods_since_training: Periods since the newest model was trained, promoted or not.
        changed_share: Sum of |adjusted value now - when trained| over sum of |value when trained|, over the
            periods trained on; NaN where not known.
        live_ratio: WAPE of the champion's published forecasts over that of seasonal naive for the same rows;
            NaN where no outcome is known. Weeks differ in how hard they are; the ratio differs less.
        promised_ratio: The same ratio in the champion's backtest; NaN where not known.
        live_periods: Target periods behind `live_ratio`.
        drifted_share: Share of the features that are distributed otherwise than a year ago; NaN where not
            known.
        live_bias: Sum of the errors of the champion's published forecasts over the sum of outcomes, of the
            newest periods, as many as are forecast; NaN where not known. A shift of everything moves it where
            the ratios above stay, since seasonal naive does not see the shift either.
        tracking_signal: Sum of those periods' errors over their mean absolute error: as many as there are
            periods where all are on one side; NaN where not known.
    """

    unusable: str = ""
    outdated: str = ""
    periods_since_training: int = 0
    changed_share: float = float("nan")
    live_ratio: float = float("nan")
    promised_ratio: float = float("nan")
    live_periods: int = 0
    drifted_share: float = float("nan")
    live_bias: float = float("nan")
    tracking_signal: float = float("nan")


@dataclass(frozen=True)
class Verdict:
    """Whether to retrain.

    Attributes:
        due: Whether to.
        cause: `champion`, `settings`, `age`, `history`, `accuracy`, `bias`, `drift`, or empty where it
            is not due.
        sentence: Why, or why not, with the figures.
    """

    due: bool
    cause: str
    sentence: str

    def as_dict(self) -> dict[str, bool | str]:
        """The fields by name."""
        return asdict(self)


def decide(facts: Facts, policy: Policy) -> Verdict:
    """Whether a model should be trained now; the first cause that holds is named."""
    if facts.unusable:
        return Verdict(True, "champion", facts.unusable)
    if facts.outdated:
        return Verdict(True, "settings", facts.outdated)
    if facts.changed_share > policy.changed_share:
        return Verdict(
            True,
            "history",
            f"{facts.changed_share:.1%} of the history that the newest model was trained on has changed "
            f"since (limit {policy.changed_share:.1%}).",
        )
    if facts.periods_since_training >= policy.every:
        return Verdict(
            True,
            "age",
            f"The newest model was trained {facts.periods_since_training} periods ago "
            f"(limit {policy.every}).",
        )
    return _by_what_was_seen(facts, policy)


def _by_what_was_seen(facts: Facts, policy: Policy) -> Verdict:
    """The causes that training may not mend, and that ask again only after a while."""
    age = facts.periods_since_training
    told = []
    for cause, (holds, finding, limit) in (
        ("accuracy", _accuracy(facts, policy)),
        ("bias", _bias(facts, policy)),
        ("drift", _drift(facts, policy)),
    ):
        if holds and age >= policy.cooldown:
            return Verdict(True, cause, f"{finding[0].upper()}{finding[1:]} ({limit}).")
        wait = f"; that is too much, but training {age} periods ago did not help" if holds else ""
        told.append(f"{finding}{wait}")
    changed = "" if np.isnan(facts.changed_share) else f"{facts.changed_share:.1%} of its history changed; "
    seen = "; ".join(finding for finding in told if finding)
    return Verdict(
        False, "", f"Not due: the newest model is {age} of {policy.every} periods old; {changed}{seen}."
    )


def _accuracy(facts: Facts, policy: Policy) -> tuple[bool, str, str]:
    """Whether published forecasts are too bad, in words, and the limit."""
    lost = facts.live_ratio / facts.promised_ratio if facts.promised_ratio > 0 else float("nan")
    if facts.live_periods < policy.evidence or np.isnan(lost):
        return False, "there are too few outcomes to judge published forecasts", ""
    judged = (
        f"published forecasts have {facts.live_ratio:.2f} of seasonal naive's error over "
        f"{facts.live_periods} periods, {facts.promised_ratio:.2f} was promised"
    )
    return lost > policy.accuracy_ratio, judged, f"limit {policy.accuracy_ratio:g} times as much"


def _bias(facts: Facts, policy: Policy) -> tuple[bool, str, str]:
    """Whether published forecasts are off to one side, in words, and the limit; no words where not known."""
    if np.isnan(facts.live_bias) or np.isnan(facts.tracking_signal):
        return False, "", ""
    one_sided = abs(facts.tracking_signal) >= policy.evidence
    side = "high" if facts.live_bias > 0 else "low"
    found = f"published forecasts were {abs(facts.live_bias):.1%} too {side} in total"
    return one_sided and abs(facts.live_bias) > policy.bias, found, f"limit {policy.bias:.0%} either way"


def _drift(facts: Facts, policy: Policy) -> tuple[bool, str, str]:
    """Whether too many features have drifted, in words, and the limit; no words where that is not known."""
    if np.isnan(facts.drifted_share):
        return False, "", ""
    found = f"{facts.drifted_share:.0%} of the features are distributed otherwise than a year ago"
    return facts.drifted_share > policy.drifted_share, found, f"limit {policy.drifted_share:.0%}"


def keep_verdict(
    con: duckdb.DuckDBPyConnection, verdict: Verdict, facts: Facts, cutoff: date, run_id: str
) -> None:
    """Append what was decided to reports.retraining."""
    con.execute(
        f"CREATE TABLE IF NOT EXISTS {RETRAINING} (decided_at TIMESTAMPTZ, cutoff DATE, run_id VARCHAR, "
        "due BOOLEAN, cause VARCHAR, sentence VARCHAR, periods_since_training INTEGER, changed_share DOUBLE, "
        "live_ratio DOUBLE, promised_ratio DOUBLE, live_periods INTEGER, drifted_share DOUBLE, "
        "live_bias DOUBLE, tracking_signal DOUBLE)"
    )
    for name in ("drifted_share", "live_bias", "tracking_signal"):  # of older homes
        con.execute(f"ALTER TABLE {RETRAINING} ADD COLUMN IF NOT EXISTS {name} DOUBLE")
    con.execute(
        f"INSERT INTO {RETRAINING} (decided_at, cutoff, run_id, due, cause, sentence, "
        "periods_since_training, changed_share, live_ratio, promised_ratio, live_periods, drifted_share, "
        "live_bias, tracking_signal) "
        "VALUES (now(), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            cutoff,
            run_id,
            verdict.due,
            verdict.cause,
            verdict.sentence,
            facts.periods_since_training,
            *(_known(x) for x in (facts.changed_share, facts.live_ratio, facts.promised_ratio)),
            facts.live_periods,
            *(_known(x) for x in (facts.drifted_share, facts.live_bias, facts.tracking_signal)),
        ],
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def last_verdict(con: duckdb.DuckDBPyConnection) -> Verdict:
    """What was decided last; not due where nothing was."""
    if not has_table(con, RETRAINING):
        return Verdict(False, "", "Nothing was decided yet.")
    found = con.execute(
        f"SELECT due, cause, sentence FROM {RETRAINING} ORDER BY decided_at DESC LIMIT 1"
    ).fetchall()
    return Verdict(*found[0])
