"""The file of alert rules, alerts.toml, and the rules that ship.

What belongs here: reading both. What does not: what they mean (core/alerts/rules.py).
"""

import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from turnover_assets.core.alerts.rules import AlertRules, Rule, parse_rules
from turnover_assets.errors import AlertRulesError
from turnover_assets.panel import PanelSpec

DEFAULT = "alerts/default.toml"


def read_alert_rules(path: Path, panel: PanelSpec) -> AlertRules:
    """Read and validate alerts.toml; without it the shipped rules apply, and messages go to the log.

    Raises:
        AlertRulesError: With everything that is wrong in the file.
    """
    shipped = default_rules(panel)
    try:
        data = _parsed(path.read_text("utf-8"), str(path))
    except FileNotFoundError:
        data = {}
    except OSError as error:
        raise AlertRulesError(str(path), [("", f"cannot be read ({error.strerror})")]) from None
    except UnicodeDecodeError:
        raise AlertRulesError(str(path), [("", "is no UTF-8 text")]) from None
    return parse_rules(data, panel, str(path), shipped)


def rules_in_force(path: Path, panel: PanelSpec) -> tuple[AlertRules, str]:
    """The rules of alerts.toml, and what is wrong with it, where the shipped ones take its place.

    A slip in the file must neither fail what publishes nor leave everybody without alerts. Nor may it end
    what only the file knows of: the rules say that they stand in for it.
    """
    try:
        return read_alert_rules(path, panel), ""
    except AlertRulesError as error:
        shipped = parse_rules({}, panel, DEFAULT, default_rules(panel))
        return replace(shipped, stand_in=True), str(error)


def default_rules(panel: PanelSpec) -> tuple[Rule, ...]:
    """The rules that ship."""
    text = (files("turnover_assets") / DEFAULT).read_text("utf-8")
    return parse_rules(_parsed(text, DEFAULT), panel, DEFAULT).rules


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AlertRulesError(source, [("", f"is not TOML: {error}")]) from None
