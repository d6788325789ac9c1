"""Anomalies: what is wrong with the history, found from the history alone.

What belongs here: detectors, from reported values up to a cutoff to findings. What does not: what is done
about a finding (core/adjustments.py), and rules for single rows (core/cleaning.py).
"""

from turnover_assets.core.anomalies.findings import Finding, FindingKind, Remedy

__all__ = ["Finding", "FindingKind", "Remedy"]
