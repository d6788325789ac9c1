"""Alerts on their way: the store and its outbox, and each channel against a real local endpoint."""

import email
import email.policy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from pydantic import SecretStr

from turnover_assets.core.alerts.channels import EmailChannel
from turnover_assets.core.alerts.conditions import conditions
from turnover_assets.core.alerts.incidents import Message
from turnover_assets.core.alerts.rules import AlertRules
from turnover_assets.errors import HomeError, UnknownNameError
from turnover_assets.panel import default_panel
from turnover_assets.storage import alert_store
from turnover_assets.storage.alert_channels import (
    DeliveryError,
    Secrets,
    Send,
    missing_secrets,
    senders,
    slack_payload,
)
from turnover_assets.storage.alert_outbox import deliver
from turnover_assets.storage.alert_store import ATTEMPTS, CLAIM, AlertStore, pause_after
from turnover_assets_tests.alert_factories import (
    NOW,
    hang,
    mail_server,
    measured,
    message,
    rules_of,
    webhook,
    weeks,
)

HOSTILE = 'x\r\nBcc: all@example.com\n<script>alert(1)</script> <!channel> & "q"'
EMAIL = {"host": "127.0.0.1", "security": "none", "from": "a@example.com", "to": ["b@example.com"]}


@pytest.fixture
def store(tmp_path: Path) -> AlertStore:
    return AlertStore(tmp_path / "alerts" / "alerts.sqlite")


class Clock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Recorder:
    """Sends to a list; fails while told so."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.got, self.names = failures, list[Message](), list[str]()

    def __call__(self, found: Message, name: str) -> str:
        if self.failures:
            self.failures -= 1
            raise DeliveryError("no way through")
        self.got.append(found)
        self.names.append(name)
        return ""


def channels(**named: object) -> AlertRules:
    return rules_of(channels=named)


def one_sender(home: Path, rules: AlertRules, kind: str, secrets: Secrets | None = None) -> Send:
    return senders(rules.channels, secrets or Secrets(), home, lambda _: None)[kind]


# The store ------------------------------------------------------------------------------------------

BIAS = rules_of({"measure": "bias", "above": 0.1})


def settle(store: AlertStore, value: float, newest_days: int = 0, rules: AlertRules = BIAS) -> list[str]:
    newest = weeks(1)[0] + timedelta(days=newest_days)
    table = measured({"": [value]}, "bias", newest=newest)
    found = conditions(rules.rules, table, [newest], default_panel())
    return [change.kind for change in store.settle(rules, lambda _: found, NOW + timedelta(days=newest_days))]


def test_an_incident_and_its_messages_are_kept(store: AlertStore) -> None:
    kinds = [settle(store, 0.2), settle(store, 0.2), settle(store, 0.3, 7), settle(store, 0.0, 14)]

    assert kinds == [["opened"], [], ["reminded"], ["recovered"]]
    (incident,) = store.incidents(NOW)
    assert (incident.count, incident.resolved_at) == (2, NOW + timedelta(days=14))
    assert store.open_incidents() == []
    assert [one.message.kind for one in store.deliveries()] == ["opened", "reminded", "recovered"]
    assert {one.message.incidents for one in store.deliveries()} == {(incident.incident_id,)}


def test_a_channel_gets_only_what_is_bad_enough_for_it(store: AlertStore) -> None:
    rules = rules_of(
        {"measure": "bias", "above": 0.1},
        channels={"webhook": {"minimum_severity": "critical"}, "email": EMAIL},
    )

    settle(store, 0.2, rules=rules)

    assert [one.channel for one in store.deliveries()] == ["log", "email"]


def test_where_looking_fails_nothing_is_changed(store: AlertStore) -> None:
    settle(store, 0.2)

    def broken(_: object) -> list[object]:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        store.settle(BIAS, broken, NOW)  # type: ignore[arg-type]

    assert len(store.open_incidents()) == len(store.deliveries()) == 1


def test_an_incident_can_be_closed_by_hand_without_a_message(store: AlertStore) -> None:
    settle(store, 0.2)

    closed = store.close(1, NOW)

    assert closed.resolved_at == NOW
    assert len(store.deliveries()) == 1
    with pytest.raises(UnknownNameError, match=r"no open incident named '1'\. Available: none"):
        store.close(1, NOW)


def test_what_is_long_over_is_forgotten(store: AlertStore) -> None:
    settle(store, 0.2)
    settle(store, 0.0, 7)
    deliver(store, {"log": Recorder()}, 10, now=lambda: NOW + timedelta(days=7))

    settle(store, 0.0, 500)

    assert store.incidents(datetime(2000, 1, 1, tzinfo=UTC)) == []
    assert store.deliveries() == []


def test_a_damaged_file_is_told_with_what_to_do(store: AlertStore) -> None:
    store.path.parent.mkdir()
    store.path.write_text("this is no database, whatever its name says" * 20)

    with pytest.raises(HomeError, match=r"(?s)alerts.sqlite cannot be read or written.*delete it"):
        store.open_incidents()


# The outbox -----------------------------------------------------------------------------------------


def test_a_message_is_sent_once(store: AlertStore, clock: Clock) -> None:
    way = Recorder()
    store.enqueue(message(), channels().channels)

    first, second = (deliver(store, {"log": way}, 10, now=clock) for _ in range(2))

    assert [attempt.error for attempt in first] == [""]
    assert second == []
    assert [found.title for found in way.got] == ["Warning: bias in total"]
    (kept,) = store.deliveries()
    assert (kept.state, kept.attempts, kept.delivered_at) == ("delivered", 1, NOW)


def test_a_failure_is_tried_again_later_and_later_and_then_given_up(store: AlertStore, clock: Clock) -> None:
    way, waits = Recorder(failures=99), []
    store.enqueue(message(), channels().channels)

    for _ in range(ATTEMPTS):
        assert [one.error for one in deliver(store, {"log": way}, 10, now=clock)] == ["no way through"]
        assert deliver(store, {"log": way}, 10, now=clock) == []  # not due
        (kept,) = store.deliveries()
        waits.append(kept.next_at - clock.now)
        clock.now = kept.next_at

    assert waits == [pause_after(n) for n in range(1, ATTEMPTS + 1)]
    assert waits[:4] == [timedelta(minutes=n) for n in (1, 2, 4, 8)]
    assert max(waits) == timedelta(hours=6)
    assert (kept.state, kept.last_error) == ("given up", "no way through")
    clock.now += timedelta(days=9)
    assert deliver(store, {"log": way}, 10, now=clock) == []


def test_a_message_is_sent_under_one_name_however_often(store: AlertStore, clock: Clock) -> None:
    way = Recorder()
    for _ in range(2):
        store.enqueue(message(), channels().channels)

    deliver(store, {"log": way}, 10, now=clock)

    assert way.names == [f"{store.name()}.1", f"{store.name()}.2"]


def test_a_channel_that_fails_does_not_hold_up_the_others(store: AlertStore, clock: Clock) -> None:
    ways = {"log": Recorder(), "webhook": Recorder(failures=1)}
    for n in range(3):
        store.enqueue(message(f"m{n}"), channels(webhook={}).channels)

    sent = deliver(store, ways, 10, now=clock)

    assert [one.title for one in ways["log"].got] == ["m0", "m1", "m2"]
    assert ways["webhook"].got == []
    assert [(one.delivery.channel, bool(one.error)) for one in sent if one.delivery.channel == "webhook"] == [
        ("webhook", True)
    ]


def test_attempts_are_bounded(store: AlertStore, clock: Clock) -> None:
    for n in range(7):
        store.enqueue(message(f"m{n}"), channels().channels)
    way = Recorder()

    assert len(deliver(store, {"log": way}, 5, now=clock)) == 5
    assert len(deliver(store, {"log": way}, 5, now=clock)) == 2
    assert [one.title for one in way.got] == [f"m{n}" for n in range(7)]


def test_what_is_not_due_can_be_sent_all_the_same(store: AlertStore, clock: Clock) -> None:
    way = Recorder(failures=1)
    store.enqueue(message(), channels().channels)
    deliver(store, {"log": way}, 10, now=clock)

    assert [one.error for one in deliver(store, {"log": way}, 10, due_only=False, now=clock)] == [""]


def test_messages_for_a_channel_that_was_taken_out_are_given_up(store: AlertStore, clock: Clock) -> None:
    store.enqueue(message(), channels(webhook={}).channels)

    deliver(store, {"log": Recorder()}, 10, now=clock)

    states = {one.channel: (one.state, one.last_error) for one in store.deliveries()}
    assert states["webhook"] == ("given up", "the channel is no longer configured")


def test_a_fault_of_ours_in_one_message_is_noted_and_retried(store: AlertStore, clock: Clock) -> None:
    def broken(_: Message, __: str) -> str:
        raise KeyError("https://secret")

    store.enqueue(message(), channels().channels)

    (attempt,) = deliver(store, {"log": broken}, 10, now=clock)

    assert attempt.error == "KeyError"
    assert store.deliveries()[0].last_error == "KeyError in the channel log"


KILLED = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from turnover_assets.storage.alert_outbox import deliver
from turnover_assets.storage.alert_store import AlertStore
def send(message, name):
    print("sending", flush=True)
    time.sleep(60)
deliver(AlertStore(Path(sys.argv[1])), {"log": send}, 10, now=lambda: datetime.fromisoformat(sys.argv[2]))
"""


def kill_while_sending(store: AlertStore, now: datetime) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store.path), now.isoformat()], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "sending\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_process_killed_while_it_sends_leaves_a_message_that_is_sent_once_more(
    store: AlertStore, clock: Clock
) -> None:
    store.enqueue(message(), channels().channels)
    kill_while_sending(store, NOW)
    way = Recorder()

    before = deliver(store, {"log": way}, 10, now=clock)  # the claim still holds: it may be on its way
    clock.now = NOW + CLAIM + timedelta(seconds=1)
    after = deliver(store, {"log": way}, 10, now=clock)

    assert before == []
    assert len(after) == len(way.got) == 1
    assert store.deliveries()[0].state == "delivered"


def test_a_message_whose_sending_was_cut_short_twice_is_given_up(store: AlertStore, clock: Clock) -> None:
    store.enqueue(message(), channels().channels)
    kill_while_sending(store, NOW)
    kill_while_sending(store, NOW + 2 * CLAIM)
    clock.now = NOW + 4 * CLAIM

    assert deliver(store, {"log": Recorder()}, 10, now=clock) == []

    (kept,) = store.deliveries()
    assert (kept.state, kept.attempts) == ("given up", 2)
    assert "it may have arrived" in kept.last_error


TOGETHER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from turnover_assets.core.alerts.conditions import conditions
from turnover_assets.panel import default_panel
from turnover_assets.storage.alert_outbox import deliver
from turnover_assets.storage.alert_store import AlertStore
from turnover_assets_tests.alert_factories import NOW, measured, rules_of, weeks
store, rules = AlertStore(Path(sys.argv[1])), rules_of(
    {"measure": "bias", "above": 0.1, "scope": "store"}, fold_above=100)
table = measured({str(n): [0.2] for n in range(8)}, "bias", level="store")
found = conditions(rules.rules, table, weeks(1), default_panel())
def send(message, name):
    print(name, flush=True)
    return ""
sys.stdin.readline()
for _ in range(3):
    store.settle(rules, lambda _: found, NOW)
    deliver(store, {"log": send}, 100)
"""


@pytest.mark.slow
def test_processes_that_look_and_send_at_once_tell_each_thing_once(store: AlertStore) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(store.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    time.sleep(0.1)
    for process in processes:  # all have read their imports by the time they read this, or shortly after
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    names = [line for output, _ in outputs for line in output.splitlines()]
    assert len(store.open_incidents()) == len(store.deliveries()) == 8
    assert sorted(names) == sorted(set(names))
    assert len(names) == 8


# The log --------------------------------------------------------------------------------------------


def test_the_log_has_a_line_of_json_for_each_message_and_tells_the_run(tmp_path: Path) -> None:
    told: list[str] = []
    send = senders(channels().channels, Secrets(), tmp_path, told.append)["log"]

    for name in ("s.1", "s.2"):
        send(message(lines := HOSTILE, lines), name)

    lines_read = (tmp_path / "alerts" / "alerts.log").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines_read] == ["s.1", "s.2"]
    assert json.loads(lines_read[0])["lines"] == [HOSTILE]
    assert len(told) == 2


def test_a_log_that_cannot_be_written_is_a_failed_delivery(tmp_path: Path) -> None:
    (tmp_path / "alerts" / "alerts.log").mkdir(parents=True)

    with pytest.raises(DeliveryError, match=r"alerts.log cannot be written"):
        one_sender(tmp_path, channels(), "log")(message(), "s.1")


# The webhook ----------------------------------------------------------------------------------------


def test_a_webhook_gets_json_that_slack_takes(tmp_path: Path) -> None:
    with webhook() as endpoint:
        send = one_sender(tmp_path, channels(webhook={}), "webhook", Secrets(SecretStr(endpoint.url)))

        send(message(), "s.1")

    (got,), (headers,) = endpoint.got, endpoint.headers
    assert got["text"] == "Warning: bias in total"
    (attachment,) = got["attachments"]
    assert attachment["text"] == "Bias is +12.0 % in total (limit 10 %).\nLook at the newest weeks."
    assert attachment["color"] == "#d9a400"
    assert headers["Content-Type"].startswith("application/json")
    assert headers["Idempotency-Key"] == "s.1"


def test_an_address_may_stand_in_a_file_of_the_home(tmp_path: Path) -> None:
    with webhook() as endpoint:
        (tmp_path / "address").write_text(f"{endpoint.url}\n")
        send = one_sender(tmp_path, channels(webhook={"url_file": "address"}), "webhook")

        send(message(), "s.1")

    assert len(endpoint.got) == 1


@pytest.mark.parametrize("answer", [302, 307, 400, 404, 429, 500, 503])
def test_any_answer_but_success_is_a_failure_without_the_address(tmp_path: Path, answer: int) -> None:
    with webhook(answer) as endpoint:
        send = one_sender(tmp_path, channels(webhook={"url": endpoint.url}), "webhook")

        with pytest.raises(DeliveryError, match=f"the answer was {answer}") as caught:
            send(message(), "s.1")

    assert len(endpoint.got) == 1  # a redirect is not followed
    assert "SECRET" not in str(caught.value)


def test_an_endpoint_that_hangs_is_left_after_the_time_given(tmp_path: Path) -> None:
    with webhook(hang(3)) as endpoint:
        send = one_sender(
            tmp_path, channels(webhook={"url": endpoint.url, "timeout_seconds": 0.2}), "webhook"
        )
        began = time.monotonic()

        with pytest.raises(DeliveryError, match="timed out"):
            send(message(), "s.1")

    assert time.monotonic() - began < 2


def test_an_endpoint_that_is_not_there_is_a_failure_without_the_address(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    send = one_sender(tmp_path, channels(webhook={"url": f"http://127.0.0.1:{port}/SECRET"}), "webhook")

    with pytest.raises(DeliveryError, match="ConnectionRefusedError") as caught:
        send(message(), "s.1")

    assert "SECRET" not in str(caught.value)


def test_an_endpoint_that_fails_first_gets_the_message_later_and_once(
    store: AlertStore, clock: Clock, tmp_path: Path
) -> None:
    with webhook(503, hang(0.3), 200) as endpoint:
        rules = channels(webhook={"url": endpoint.url, "timeout_seconds": 0.1})
        way = {"webhook": one_sender(tmp_path, rules, "webhook")}
        store.enqueue(message(), {"webhook": rules.channels["webhook"]})
        outcomes = []
        for _ in range(4):
            outcomes += [bool(one.error) for one in deliver(store, way, 10, now=clock)]
            clock.now += timedelta(hours=1)

    assert outcomes == [True, True, False]
    assert store.deliveries()[0].attempts == 3


def test_hostile_texts_mention_nobody_in_slack() -> None:
    payload = json.dumps(slack_payload(message(HOSTILE, HOSTILE, advice=HOSTILE)))

    assert "<" not in payload
    assert ">" not in payload
    assert "&lt;!channel&gt; &amp; " in payload


def test_long_texts_are_cut_for_slack() -> None:
    payload = slack_payload(message("t" * 500, *["line" * 100] * 50))

    assert len(str(payload["text"])) == 150
    assert len(payload["attachments"][0]["text"]) == 3000  # type: ignore[index]


# E-mail ---------------------------------------------------------------------------------------------


def parsed(text: str) -> EmailMessage:
    found = email.message_from_string(text, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def body(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def test_a_mail_arrives_as_plain_text_and_html(tmp_path: Path) -> None:
    with mail_server() as server:
        rules = channels(email={**EMAIL, "port": server.port, "to": ["b@example.com", "c@example.com"]})

        one_sender(tmp_path, rules, "email")(message(), "store.7")

    (sent,) = server.got
    mail = parsed(sent)
    assert server.envelopes == [("a@example.com", ["b@example.com", "c@example.com"])]
    assert mail["Subject"] == "[turnover] Warning: bias in total"
    assert (mail["From"], mail["To"]) == ("a@example.com", "b@example.com, c@example.com")
    assert mail["Message-ID"] == "<store.7@turnover-assets>"
    assert mail["References"] == "<store.incident-1@turnover-assets>"
    assert body(mail, "plain") == "Bias is +12.0 % in total (limit 10 %).\nLook at the newest weeks.\n"
    assert "<b>What to do:</b> Look at the newest weeks." in body(mail, "html")


def test_hostile_texts_add_no_headers_and_no_markup(tmp_path: Path) -> None:
    with mail_server() as server:
        rules = channels(email={**EMAIL, "port": server.port})

        one_sender(tmp_path, rules, "email")(message(HOSTILE, HOSTILE, ".\r\nQUIT"), "store.7")

    (sent,) = server.got
    mail = parsed(sent)
    assert mail["Bcc"] is None
    assert mail["Subject"].strip().startswith("[turnover] x Bcc: all@example.com <script>")
    assert server.envelopes[0][1] == ["b@example.com"]
    assert "<script>" not in body(mail, "html")
    assert "&lt;script&gt;" in body(mail, "html")
    assert "QUIT" in body(mail, "plain")


def test_a_user_logs_in_with_the_password_of_a_file_or_the_settings(tmp_path: Path) -> None:
    with mail_server() as server:
        (tmp_path / "password").write_text(f"{server.password}\n")
        channel = EmailChannel.model_validate({**EMAIL, "port": server.port, "user": "planning"})
        by_file = channel.model_copy(update={"password_file": Path("password")})

        for chosen, secrets in (
            (channel, Secrets(smtp_password=SecretStr(server.password))),
            (by_file, Secrets()),
        ):
            senders({"email": chosen}, secrets, tmp_path, lambda _: None)["email"](message(), "s.1")

    assert len(server.got) == 2


def test_a_wrong_password_is_a_failure_that_does_not_show_it(tmp_path: Path) -> None:
    with mail_server() as server:
        channel = EmailChannel.model_validate({**EMAIL, "port": server.port, "user": "planning"})
        secrets = Secrets(smtp_password=SecretStr("hunter2"))

        with pytest.raises(DeliveryError, match=r"SMTPAuthenticationError.*535") as caught:
            senders({"email": channel}, secrets, tmp_path, lambda _: None)["email"](message(), "s.1")

    assert "hunter2" not in str(caught.value)
    assert "(secret)" in str(caught.value)
    assert "hunter2" not in repr(secrets)


def test_a_server_without_starttls_gets_nothing_where_it_was_asked_for(tmp_path: Path) -> None:
    with mail_server() as server:
        rules = channels(email={**EMAIL, "port": server.port, "security": "starttls"})

        with pytest.raises(DeliveryError, match="STARTTLS extension not supported"):
            one_sender(tmp_path, rules, "email")(message(), "s.1")

    assert server.got == []


def test_recipients_that_are_refused_are_noted_and_the_others_get_it_once(
    store: AlertStore, clock: Clock, tmp_path: Path
) -> None:
    with mail_server(refuse_recipient="gone@example.com") as server:
        rules = channels(email={**EMAIL, "port": server.port, "to": ["b@example.com", "gone@example.com"]})
        store.enqueue(message(), {"email": rules.channels["email"]})

        deliver(store, {"email": one_sender(tmp_path, rules, "email")}, 10, now=clock)

    (kept,) = store.deliveries()
    assert (kept.state, kept.last_error) == ("delivered", "refused for gone@example.com")
    assert len(server.got) == 1


def test_a_server_that_refuses_for_now_gets_the_message_later(
    store: AlertStore, clock: Clock, tmp_path: Path
) -> None:
    with mail_server(refuse_messages=1) as server:
        rules = channels(email={**EMAIL, "port": server.port})
        store.enqueue(message(), {"email": rules.channels["email"]})
        way = {"email": one_sender(tmp_path, rules, "email")}

        first = deliver(store, way, 10, now=clock)
        clock.now += timedelta(minutes=2)
        second = deliver(store, way, 10, now=clock)

    assert "try again later" in first[0].error
    assert [one.error for one in second] == [""]
    assert len(server.got) == 1


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_mail_server_that_says_nothing_is_left_after_the_time_given(tmp_path: Path, silent: int) -> None:
    rules = channels(email={**EMAIL, "port": silent, "timeout_seconds": 0.2})

    with pytest.raises(DeliveryError, match="timed out"):
        one_sender(tmp_path, rules, "email")(message(), "s.1")


# Secrets --------------------------------------------------------------------------------------------


def test_secrets_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("hunter2")
    rules = rules_of(
        channels={"webhook": {"url_file": "wrong"}, "email": {**EMAIL, "security": "tls", "user": "u"}}
    )
    gone = rules_of(channels={"webhook": {"url_file": "gone"}})

    problems = dict(missing_secrets(rules.channels, Secrets(), tmp_path))

    assert "does not begin with https://" in problems["channels.webhook"]
    assert "TURNOVER_ALERT_SMTP_PASSWORD" in problems["channels.email"]
    assert "hunter2" not in str(problems)
    assert (
        "cannot be read (No such file"
        in dict(missing_secrets(gone.channels, Secrets(), tmp_path))["channels.webhook"]
    )
    assert missing_secrets(channels().channels, Secrets(), tmp_path) == []


def test_a_claim_outlasts_any_sending() -> None:
    answers_waited_for, longest = 9, 60  # of an SMTP dialogue, from connecting to QUIT

    assert timedelta(seconds=answers_waited_for * longest) < alert_store.CLAIM


def test_messages_survive_the_store_unchanged(store: AlertStore) -> None:
    whole = replace(message(HOSTILE, HOSTILE, "ü"), incidents=(1, 2))

    store.enqueue(whole, channels().channels)

    assert store.deliveries()[0].message == whole
