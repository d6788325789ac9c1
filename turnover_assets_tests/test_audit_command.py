"""`turnover audit`, and what housekeeping and the doctor do about keys and audit."""

import csv
import io
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from turnover_assets import doctor
from turnover_assets.cli import app
from turnover_assets.defs import housekeeping
from turnover_assets.doctor import Finding
from turnover_assets.doctor import access as checks
from turnover_assets.settings import Settings
from turnover_assets.storage.audit import COLUMNS, dropped_row
from turnover_assets.storage.durable import PARTIAL
from turnover_assets_tests.factories import Landed
from turnover_assets_tests.serving_factories import new_key, settings_of, store_of
from turnover_assets_tests.test_audit import row, written

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with requests of today, of two days back and of ten days back."""
    on_forecasts = {"route": "/v1/forecasts", "path": "/v1/forecasts", "method": "GET", "caller": "AAAAAAAA"}
    on_inference = {"route": "/v2/models/{name}/infer", "path": "/v2/models/turnover/infer", "method": "POST"}
    written(
        tmp_path / "audit",
        [row(NOW - 10 * DAY, "old", **on_forecasts)],
        [row(NOW - 2 * DAY, "before", **on_forecasts, status=404)],
        [
            row(NOW - timedelta(seconds=2), "a", **on_forecasts, model_version=3, role="champion"),
            row(NOW - timedelta(seconds=1), "b", **on_inference, status=500, body='{"x": "ü,\\n"}'),
        ],
    )
    return tmp_path


def turnover(home: Path, *words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["audit", *words], env={"TURNOVER_HOME": str(home)})
    assert result.exit_code == code, result.output
    return result


def ids(home: Path, *words: str) -> list[str]:
    lines = turnover(home, *words, "--format", "json").stdout.splitlines()
    return [json.loads(line)["request_id"] for line in lines]


def test_the_summary_tells_what_was_asked_by_whom_and_how_it_went(home: Path) -> None:
    text = " ".join(turnover(home).stdout.split())

    assert text.startswith("3 requests from")
    assert "GET /v1/forecasts 2 1 0 1.5 1.5" in text
    assert "POST /v2/models/{name}/infer 1 0 1" in text
    assert "AAAAAAAA 2" in text
    assert "(nobody) 1" in text
    assert "champion version 3 1" in text


def test_what_was_dropped_is_told_first(home: Path) -> None:
    written(home / "audit", [dropped_row(int(NOW.timestamp() * 1e6), 1234)])

    assert "1,234 rows were dropped" in turnover(home).stderr


def test_without_an_audit_the_summary_says_so(tmp_path: Path) -> None:
    assert "No request is recorded" in turnover(tmp_path).stderr
    assert turnover(tmp_path, "--format", "csv").stdout.splitlines() == [",".join(f'"{c}"' for c in COLUMNS)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["before", "a", "b"]),
        (["--since", f"{NOW - 11 * DAY:%Y-%m-%d}"], ["old", "before", "a", "b"]),
        (["--since", f"{NOW - 11 * DAY:%Y-%m-%d}", "--until", f"{NOW - 10 * DAY:%Y-%m-%d}"], ["old"]),
        (["--until", f"{NOW - timedelta(seconds=1):%Y-%m-%dT%H:%M:%S}"], ["before", "a"]),
        (["--key", "AAAAAAAA"], ["before", "a"]),
        (["--key", "' OR true --"], []),
        (["--route", "/v2/models/{name}/infer"], ["b"]),
        (["--route", "/v2/models/turnover"], ["b"]),
        (["--status", "404"], ["before"]),
        (["--status", "5xx"], ["b"]),
    ],
)
def test_rows_are_chosen(home: Path, words: list[str], expected: list[str]) -> None:
    assert ids(home, *words) == expected


def test_every_format_has_every_column(home: Path, tmp_path: Path) -> None:
    as_json = json.loads(turnover(home, "--status", "500", "--format", "json").stdout)
    (as_csv,) = csv.DictReader(io.StringIO(turnover(home, "--status", "500", "--format", "csv").stdout))
    turnover(home, "--status", "500", "--output", str(tmp_path / "rows.parquet"))
    (as_parquet,) = pq.read_table(tmp_path / "rows.parquet").to_pylist()

    assert list(as_json) == list(as_csv) == list(as_parquet) == list(COLUMNS)
    assert as_json["body"] == as_csv["body"] == as_parquet["body"] == '{"x": "ü,\\n"}'
    assert as_parquet["asked_at"] == NOW - timedelta(seconds=1)


@pytest.mark.parametrize("status", ["600", "x", "4x", "40"])
def test_what_is_no_status_is_refused(home: Path, status: str) -> None:
    assert "is no status" in turnover(home, "--status", status, code=1).stderr


# Housekeeping ------------------------------------------------------------------------------------


def test_housekeeping_removes_old_days_and_merges_small_files(copied: Landed) -> None:
    settings = copied.settings.model_copy(update={"keep_audit_days": 5})
    folder = settings.audit_path
    written(folder, [row(NOW - 10 * DAY)], [row(NOW - DAY)], [row(NOW - DAY)])
    dead = folder / f"{NOW - DAY:%Y-%m-%d}" / f"{PARTIAL}dead.parquet"
    dead.write_bytes(b"x")
    for path in folder.rglob("*.parquet"):
        os.utime(path, (0, 0))

    with dg.DagsterInstance.from_config(str(settings.dagster_path)) as instance:
        found = {s.part: s for s in housekeeping.sweep_all(settings, instance, NOW, remove=True)}

    assert found["audit of requests"].removed == (f"{NOW - 10 * DAY:%Y-%m-%d}",)
    assert found["audit of requests"].note == "merged 2 small files"
    assert dead.name in found["leftovers of killed writers"].names()
    assert len(ids(settings.home)) == 2


# The doctor --------------------------------------------------------------------------------------


def looked(check: Any, settings: Settings) -> list[Finding]:
    patient = doctor.Patient(settings, "", False, datetime.now(UTC))
    return [Finding("", *told) for told in check(patient)]


def test_a_home_without_keys_is_well_as_long_as_nothing_listens_elsewhere(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)

    (well,) = looked(checks.access, settings)
    (exposed,) = looked(checks.access, settings_of(tmp_path, api_host="192.0.2.1"))

    assert (well.level, well.found) == ("ok", "no key, OIDC or proxy: servers listen on loopback only")
    assert exposed.level == "problem"
    assert "turnover keys create" in exposed.remedy
    assert looked(checks.keys, settings) == looked(checks.audit, settings) == []


def test_keys_that_others_can_read_are_told(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    new_key(settings)
    settings.keys_path.chmod(0o644)

    well, told = looked(checks.access, settings)

    assert well.found == "callers are recognised by API keys"
    assert (told.level, told.remedy) == ("warning", f"`chmod 600 {settings.keys_path}`")


def test_keys_that_end_are_told_before_and_after(tmp_path: Path) -> None:
    settings, now = settings_of(tmp_path), datetime.now(UTC)
    new_key(settings, "for long")
    assert [found.level for found in looked(checks.keys, settings)] == ["ok"]

    new_key(settings, "soon", expires_at=now + timedelta(days=3))
    store_of(settings).create("over", ["read"], now - 2 * DAY, expires_at=now - DAY)

    expired, soon = looked(checks.keys, settings)
    assert ("expired: over" in expired.found, "soon (" in soon.found) == (True, True)
    for key in store_of(settings).read()[1:]:
        store_of(settings).revoke(key.key_id, now)
    assert "no key is in force" in [found.found for found in looked(checks.keys, settings)]


def test_a_key_that_was_replaced_is_no_concern(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    new_key(settings, "analyst")
    store_of(settings).rotate("analyst", datetime.now(UTC), timedelta(hours=1))

    assert [found.level for found in looked(checks.keys, settings)] == ["ok"]


def test_dropped_rows_of_the_audit_are_told(home: Path) -> None:
    settings = settings_of(home)
    assert "3 requests in 7 days" in looked(checks.audit, settings)[0].found

    written(settings.audit_path, [dropped_row(int(NOW.timestamp() * 1e6), 5)])

    (told,) = looked(checks.audit, settings)
    assert told.level == "warning"
    assert told.found.startswith("5 rows were dropped")
