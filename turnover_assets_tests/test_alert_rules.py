"""The file of alert rules: what it may say, what the shipped one says, and that no secret is ever shown."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from turnover_assets.core.alerts import rules
from turnover_assets.core.alerts.channels import CHANNELS, EmailChannel, Severity, WebhookChannel
from turnover_assets.core.alerts.measures import MEASURES
from turnover_assets.core.alerts.rules import EVENTS, parse_rules
from turnover_assets.errors import AlertRulesError
from turnover_assets.panel import default_panel
from turnover_assets.storage.alert_rules import default_rules, read_alert_rules
from turnover_assets_tests.alert_factories import rules_of
from turnover_assets_tests.factories import daily, walmart_like

PANEL = default_panel()
SECRET = "https://hooks.example.com/services/T0/B0/verysecret"


def write(folder: Path, text: str) -> Path:
    path = folder / "alerts.toml"
    path.write_text(text, "utf-8")
    return path


def problems_of(data: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(AlertRulesError) as caught:
        parse_rules(data, PANEL, "alerts.toml")
    return dict(caught.value.problems)


# What ships -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("panel", [PANEL, walmart_like(), daily()], ids=lambda panel: panel.name)
def test_the_shipped_rules_fit_any_panel_and_cover_every_event(panel: Any) -> None:
    found = default_rules(panel)

    assert {rule.event for rule in found if rule.event} == set(EVENTS)
    assert {rule.level for rule in found if rule.measure} == {"total"}
    assert all(rule.advice for rule in found)


def test_without_a_file_the_shipped_rules_apply_and_messages_go_to_the_log(tmp_path: Path) -> None:
    found = read_alert_rules(tmp_path / "alerts.toml", PANEL)

    assert found.rules == default_rules(PANEL)
    assert list(found.channels) == ["log"]


def test_a_rule_of_the_same_name_takes_the_place_of_a_shipped_one(tmp_path: Path) -> None:
    path = write(tmp_path, '[[rule]]\nname = "bias"\nmeasure = "bias"\nabove = 0.5\nseverity = "critical"\n')

    found = read_alert_rules(path, PANEL).rules

    (bias,) = [rule for rule in found if rule.name == "bias"]
    assert (bias.above, bias.below, bias.severity) == (0.5, None, Severity.CRITICAL)
    assert len(found) == len(default_rules(PANEL))


def test_shipped_rules_can_be_switched_off_one_by_one_or_all(tmp_path: Path) -> None:
    off = '[[rule]]\nname = "data late"\nevent = "data_late"\nenabled = false\n'

    one = read_alert_rules(write(tmp_path, off), PANEL).rules
    none = read_alert_rules(write(tmp_path, "default_rules = false\n"), PANEL).rules

    assert {rule.name for rule in default_rules(PANEL)} - {rule.name for rule in one} == {"data late"}
    assert none == ()


# What is wrong --------------------------------------------------------------------------------------


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown measure": ({"measure": "wap", "above": 1}, "measure", "'wap' is not known; there are wape, "),
    "unknown event": ({"event": "fire"}, "event", "'fire' is not known; there are run_failed, "),
    "neither": ({"above": 1}, "", "names no measure and no event"),
    "both": ({"measure": "bias", "event": "run_failed", "above": 1}, "", "names both"),
    "no limit": ({"measure": "bias"}, "", "has no limit; give above, below or both"),
    "everything out": ({"measure": "bias", "above": 0, "below": 1}, "above", "every value would be out"),
    "not a number": ({"measure": "bias", "above": float("nan")}, "above", "finite number"),
    "no such level": (
        {"measure": "bias", "above": 1, "scope": "shop"},
        "scope",
        "there are total, department",
    ),
    "two levels": (
        {"measure": "bias", "above": 1, "scope": {"store": 1, "region": 2}},
        "scope",
        "names not just one level",
    ),
    "a member of the total": (
        {"measure": "bias", "above": 1, "scope": {"total": 1}},
        "scope",
        "no level here",
    ),
    "only for the total": (
        {"measure": "missing_share", "above": 1, "scope": "store"},
        "scope",
        "measured for the total only",
    ),
    "limit of an event": ({"event": "run_failed", "above": 1}, "above", "no meaning for an event"),
    "scope of an event": ({"event": "run_failed", "scope": "store"}, "scope", "no meaning for an event"),
    "periods of a file": ({"event": "file_refused", "periods": 2}, "periods", "has a meaning only for"),
    "no periods": ({"measure": "bias", "above": 1, "periods": 0}, "periods", "greater than or equal to 1"),
    "severity": ({"event": "run_failed", "severity": "bad"}, "severity", "'info', 'warning' or 'critical'"),
    "unknown field": ({"event": "run_failed", "unless": 1}, "unless", "is no field here"),
    "line break": ({"name": "a\nb", "event": "run_failed"}, "name", "line breaks"),
}


@pytest.mark.parametrize(("rule", "field", "what"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_rule_is_told_with_its_place(rule: dict[str, Any], field: str, what: str) -> None:
    found = problems_of({"rule": [{"name": "mine", **rule}]})

    name = rule.get("name", "mine")
    assert what in found[f"rule 1 ({name}), {field}" if field else f"rule 1 ({name})"]


def test_all_that_is_wrong_is_told_at_once_with_what_to_do() -> None:
    data = {
        "remind": 3,
        "fold_above": 0,
        "rule": [{"name": "a", "measure": "x", "above": 1}, {"name": "a", "event": "y"}],
        "channels": {"pager": {}, "email": {"host": "mail", "to": ["x\ny@example.com"]}},
    }

    with pytest.raises(AlertRulesError, match=r"(?s)have 8 problems.*turnover alerts check") as caught:
        parse_rules(data, PANEL, "alerts.toml")

    places = [place for place, _ in caught.value.problems]
    assert places == [
        "remind",
        "fold_above",
        "rule 1 (a), measure",
        "rule 2 (a), event",
        "rule",
        "channels.pager",
        "channels.email, from",
        "channels.email, to",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        pytest.param("rule = 3", r"not written as \[\[rule\]\]", id="a number of rules"),
        pytest.param("[rule]\nname = 'a'", r"not written as \[\[rule\]\]", id="one bracket"),
        pytest.param("channels = 1", r"not written as \[channels", id="no table"),
        pytest.param("[channels]\nlog = 1", r"not written as \[channels.log\]", id="no table within"),
        pytest.param("= 1", "is not TOML", id="no TOML"),
    ],
)
def test_a_file_of_another_form_is_told_plainly(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(AlertRulesError, match=what):
        read_alert_rules(write(tmp_path, text), PANEL)


def test_a_file_that_cannot_be_read_is_told_plainly(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "alerts.toml").write_bytes(b"\xff")

    with pytest.raises(AlertRulesError, match="cannot be read"):
        read_alert_rules(tmp_path / "folder", PANEL)
    with pytest.raises(AlertRulesError, match="is no UTF-8 text"):
        read_alert_rules(tmp_path / "alerts.toml", PANEL)


# Channels -------------------------------------------------------------------------------------------

EMAIL = {"host": "mail.example.com", "from": "a@example.com", "to": ["b@example.com"]}


def test_channels_have_quiet_defaults() -> None:
    channels = rules_of(channels={"webhook": {}, "email": EMAIL}).channels

    assert {kind: channel.minimum_severity for kind, channel in channels.items()} == {
        "log": "info",
        "webhook": "warning",
        "email": "warning",
    }
    assert isinstance(email := channels["email"], EmailChannel)
    assert (email.port, email.security, email.recipients) == (587, "starttls", ("b@example.com",))


CHANNELS_WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "no address": ("webhook", {"url": "verysecret"}, "begins with https:// or http://"),
    "another scheme": ("webhook", {"url": "file:///etc/passwd"}, "begins with https:// or http://"),
    "twice": ("webhook", {"url": SECRET, "url_file": "x"}, "stands beside a url_file"),
    "wait for ever": ("webhook", {"timeout_seconds": 1e9}, "less than or equal to 60"),
    "a header within": (
        "email",
        {**EMAIL, "to": ["b@example.com\nBcc: all@example.com"]},
        "no plain address",
    ),
    "a list in one": ("email", {**EMAIL, "to": ["b@example.com, c@example.com"]}, "no plain address"),
    "nobody": ("email", {**EMAIL, "to": []}, "at least 1 item"),
    "a host with a line break": ("email", {**EMAIL, "host": "mail\nx"}, "match pattern"),
    "a password in the clear": ("email", {**EMAIL, "user": "u", "security": "none"}, "in the clear"),
    "a password in the file": ("email", {**EMAIL, "password": "verysecret"}, "is no field here"),
    "a password of nobody": ("email", {**EMAIL, "password_file": "p"}, "left out"),
}


@pytest.mark.parametrize(("kind", "channel", "what"), CHANNELS_WRONG.values(), ids=CHANNELS_WRONG.keys())
def test_a_wrong_channel_is_told_without_its_secrets(kind: str, channel: dict[str, Any], what: str) -> None:
    found = problems_of({"channels": {kind: channel}})

    assert any(what in problem for problem in found.values()), found
    assert "verysecret" not in str(found)


def test_a_sender_that_is_no_address_is_told() -> None:
    found = problems_of({"channels": {"email": {**EMAIL, "from": "a@b\r\nBcc: c@d"}}})

    assert "no plain address" in found["channels.email, from"]


def test_an_address_in_the_file_is_not_shown_by_anything() -> None:
    found = rules_of(channels={"webhook": {"url": SECRET}})

    channel = found.channels["webhook"]
    assert isinstance(channel, WebhookChannel)
    assert channel.url is not None
    assert channel.url.get_secret_value() == SECRET
    assert "verysecret" not in f"{found!r} {channel!r} {channel} {channel.model_dump()}"


def test_every_measure_reads_as_a_sentence() -> None:
    for name, measure in MEASURES.items():
        assert measure.words[0].isupper(), name
        assert measure.shown(0.5), name
        assert measure.shown(float("nan")) == "not known"


# The documentation ----------------------------------------------------------------------------------

CONFIGURATION = (Path(__file__).resolve().parent.parent / "docs" / "configuration.md").read_text("utf-8")
CONCEPTS = (Path(__file__).resolve().parent.parent / "docs" / "concepts.md").read_text("utf-8")
OPERATIONS = (Path(__file__).resolve().parent.parent / "docs" / "operations.md").read_text("utf-8")


def described() -> str:
    """The part of the configuration page on alerts."""
    return CONFIGURATION.partition("\n## Alerts\n")[2].partition("\n## ")[0]


def fields_of(model: type[BaseModel]) -> set[str]:
    return {info.alias or name for name, info in model.model_fields.items()}


def test_every_field_measure_and_event_is_described() -> None:
    known = [*MEASURES, *EVENTS, *fields_of(rules._RuleFields), *fields_of(rules._TopFields)]
    known += [field for channel in CHANNELS.values() for field in fields_of(channel)]

    assert [name for name in known if f"`{name}`" not in described()] == []


def test_the_measures_are_those_that_monitoring_takes() -> None:
    _, _, table = CONCEPTS.partition("\n| measure | what it is |\n")
    rows = [line for line in table.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    names = {row: re.findall(r"`(\w+)`", row.split("|")[1]) for row in rows}
    taken = {name: "(total only)" in row for row in rows for name in names[row]}

    assert {name: measure.only_total for name, measure in MEASURES.items()} == taken


def test_no_field_is_described_that_there_is_not() -> None:
    rows = [line.split("|")[1] for line in described().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}

    known = fields_of(rules._RuleFields) | fields_of(rules._TopFields)
    assert named == known.union(*(fields_of(channel) for channel in CHANNELS.values()))


def test_the_example_of_the_page_is_valid() -> None:
    example = described().partition("```toml\n")[2].partition("```")[0]

    found = parse_rules(tomllib.loads(example), PANEL, "the page", default_rules(PANEL))

    assert set(found.channels) == {"log", "webhook", "email"}
    assert {rule.name for rule in found.rules} >= {"bias", "a department is off", "run failed"}


def test_every_shipped_rule_is_explained() -> None:
    table = OPERATIONS.partition("\n## An alert comes\n")[2].partition("\n## ")[0]
    explained = {
        name.strip() for row in re.findall(r"^\| ([^|]+) \|", table, re.M) for name in row.split(",")
    }

    assert {rule.name for rule in default_rules(PANEL)} == explained - {"rule", "---"}
