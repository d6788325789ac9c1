"""What may befall `turnover serve` itself: ten thousand wrong keys, and a disk without room for the audit."""

import http.client
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from turnover_assets.core.api_keys import compose_key
from turnover_assets.settings import Settings
from turnover_assets.storage.audit import AuditFilter, opened_audit
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.api_factories import publish
from turnover_assets_tests.serving_factories import new_key
from turnover_assets_tests.test_api_serve import get, served
from turnover_assets_tests.waiting import PATIENCE

pytestmark = pytest.mark.slow
CONNECTIONS, OF_EACH = 20, 500  # wrong keys: ten thousand
SMALL, ROOMY = "64k", "4m"
LONGEST = 60  # seconds for an answer


@pytest.fixture
def home(served_home: Settings, tmp_path: Path) -> Settings:
    """A home of one's own."""
    settings = served_home.model_copy(update={"home": tmp_path})
    settings.published_path.mkdir()
    publish(settings.published_path, current(served_home.published_path))
    return settings


class Caller:
    """A connection that stays open."""

    def __init__(self, base: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=PATIENCE)

    def ask(self, path: str, key: str = "") -> int:
        """The status of an answer, which is read whole."""
        self._connection.request("GET", path, headers={"X-API-Key": key} if key else {})
        answer = self._connection.getresponse()
        answer.read()
        return answer.status


def test_ten_thousand_wrong_keys_leave_right_ones_answered_and_the_server_up(home: Settings) -> None:
    key = new_key(home, rate="unlimited").secret
    seen: Counter[int] = Counter()
    counting = threading.Lock()

    def attack(base: str, number: int) -> None:
        caller = Caller(base)
        wrong = [compose_key(f"{number:04}{each:04}", os.urandom(16).hex()) for each in range(OF_EACH)]
        mine = Counter(caller.ask("/v1/aggregates?limit=1", each) for each in wrong)
        with counting:
            seen.update(mine)

    with served(home) as (process, base, _):
        threads = [threading.Thread(target=attack, args=(base, number)) for number in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        right, waited, caller = Counter[int](), 0.0, Caller(base)
        while any(thread.is_alive() for thread in threads):
            began = time.monotonic()
            right[caller.ask("/v1/aggregates?limit=1", key)] += 1
            waited = max(waited, time.monotonic() - began)
        counted = re.findall(
            r"^turnover_access_wrong_total\{.*\} (\S+)$", get(f"{base}/metrics"), re.MULTILINE
        )
        is_up = process.poll() is None and caller.ask("/healthz", key) == 200

    assert seen.total() == CONNECTIONS * OF_EACH
    assert set(seen) == {401, 429}
    assert sum(map(float, counted)) == CONNECTIONS * OF_EACH
    assert set(right) == {200}
    assert right.total() > 0
    assert waited < LONGEST  # which two busy cores do not use up
    assert is_up


@contextmanager
def tiny_disk(folder: Path) -> Iterator[None]:
    """A disk of some kilobytes in place of a folder; skips who may not make one."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_costs_rows_of_the_audit_which_are_counted_and_no_answer(home: Settings) -> None:
    wanted = "/v1/aggregates?limit=1"
    with tiny_disk(home.audit_path):
        with served(home, "--no-access-log", TURNOVER_AUDIT_FLUSH_SECONDS="0.05") as (process, base, lines):
            caller, answers = Caller(base), Counter[int]()

            def ask_until(metric: str) -> None:
                until = time.monotonic() + PATIENCE
                while metric not in get(f"{base}/metrics"):
                    assert time.monotonic() < until, metric
                    answers.update(caller.ask(wanted) for _ in range(20))

            ask_until("turnover_audit_failing 1.0")
            full = os.statvfs(home.audit_path)
            answers.update(caller.ask(wanted) for _ in range(50))
            grow = ["mount", "-o", f"remount,size={ROOMY}", str(home.audit_path)]
            subprocess.run(grow, check=True)
            ask_until("turnover_audit_failing 0.0")
            process.terminate()
            assert process.wait(PATIENCE) == 0
        with opened_audit(home.audit_path, AuditFilter()) as con:
            kept = con.execute("SELECT count(*) FROM audit WHERE path = '/v1/aggregates'").fetchone()
            dropped = con.execute("SELECT sum(dropped) FROM audit").fetchone()

    assert full.f_bavail * full.f_bsize < 16_384
    assert set(answers) == {200}, answers
    assert any("No space left" in line for line in lines)
    assert kept is not None
    assert dropped is not None
    assert kept[0] + int(dropped[0] or 0) >= answers.total()
