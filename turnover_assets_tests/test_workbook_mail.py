"""Workbooks by e-mail, against a real little server: once for each publishing and address, never twice."""

import email
import email.policy
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

import dagster as dg
import pytest

from turnover_assets.core.alerts.channels import Channel
from turnover_assets.core.alerts.incidents import Message
from turnover_assets.defs import common, workbooks
from turnover_assets.errors import RecipientsError
from turnover_assets.settings import Settings
from turnover_assets.storage import workbook_mail
from turnover_assets.storage.alert_channels import Secrets, workbook_senders
from turnover_assets.storage.alert_outbox import Sent, deliver, deliver_all
from turnover_assets.storage.alert_store import ATTEMPTS, CLAIM, WORKBOOKS, AlertStore
from turnover_assets.storage.snapshots import Snapshot, current
from turnover_assets_tests.alert_factories import NOW, MailServer, mail_server, message, rules_of
from turnover_assets_tests.factories import Landed
from turnover_assets_tests.workbook_files import read

EMAIL = {"host": "127.0.0.1", "security": "none", "from": "a@example.com", "to": ["alerts@example.com"]}
ANNA, BEN = "anna@example.com", "ben@example.com"
SNAPSHOT = Snapshot(Path("2030-06-03_x"), {"cutoff": "2030-06-03", "last_period": "2030-07-29"})


@pytest.fixture
def store(tmp_path: Path) -> AlertStore:
    return AlertStore(tmp_path / "alerts" / "alerts.sqlite")


@pytest.fixture
def files(tmp_path: Path) -> dict[tuple[str, str], Path]:
    """Two workbooks of a home."""
    found = {}
    for member in ("65", "7"):
        path = tmp_path / "reports" / f"region-{member}_2030-06-03.xlsx"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"workbook {member}".encode())
        found["region", member] = path
    return found


def channels(server: MailServer) -> dict[str, Channel]:
    return dict(rules_of(channels={"email": {**EMAIL, "port": server.port}}).channels)


def mails(server: MailServer) -> list[EmailMessage]:
    parsed = (email.message_from_string(text, policy=email.policy.default) for text in server.got)
    return [one for one in parsed if isinstance(one, EmailMessage)]


def send(store: AlertStore, server: MailServer, home: Path, **options: object) -> list[Sent]:
    ways = workbook_senders(channels(server), Secrets(), home)
    return deliver(store, ways, 100, now=lambda: options.get("now", NOW))  # type: ignore[arg-type, return-value]


# The outbox -----------------------------------------------------------------------------------------


def test_everybody_gets_a_message_of_their_own_with_their_workbooks(
    store: AlertStore, files: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    recipients = {ANNA: list(files), BEN: [("region", "7"), ("region", "none of that name")]}

    with mail_server() as server:
        new = workbook_mail.enqueue_workbooks(store, tmp_path, SNAPSHOT, recipients, files, NOW)
        sent = send(store, server, tmp_path)

    assert (new, [one.error for one in sent]) == (2, ["", ""])
    assert server.envelopes == [("a@example.com", [ANNA]), ("a@example.com", [BEN])]
    first, second = mails(server)
    assert (first["To"], second["To"]) == (ANNA, BEN)
    assert first["Subject"] == "[turnover] Forecasts up to 2030-07-29: region 65, region 7"
    attached = [(part.get_filename(), part.get_content()) for part in first.iter_attachments()]
    assert attached == [
        ("region-65_2030-06-03.xlsx", b"workbook 65"),
        ("region-7_2030-06-03.xlsx", b"workbook 7"),
    ]
    assert [part.get_filename() for part in second.iter_attachments()] == ["region-7_2030-06-03.xlsx"]
    kinds = {part.get_content_type() for part in first.iter_attachments()}
    assert kinds == {"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}


def test_a_publishing_is_sent_once_however_often_it_is_asked_for(
    store: AlertStore, files: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    with mail_server() as server:
        for _ in range(3):
            workbook_mail.enqueue_workbooks(store, tmp_path, SNAPSHOT, {ANNA: list(files)}, files, NOW)
            send(store, server, tmp_path)
        other = Snapshot(Path("2030-06-10_y"), SNAPSHOT.facts)
        workbook_mail.enqueue_workbooks(store, tmp_path, other, {ANNA: list(files)}, files, NOW)
        send(store, server, tmp_path)

    assert len(server.got) == 2


def test_a_server_that_refuses_for_now_gets_it_later_and_once(
    store: AlertStore, files: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    workbook_mail.enqueue_workbooks(store, tmp_path, SNAPSHOT, {ANNA: list(files)}, files, NOW)

    with mail_server(refuse_messages=1) as server:
        first = send(store, server, tmp_path)
        again = send(store, server, tmp_path)  # not due
        later = send(store, server, tmp_path, now=NOW + timedelta(minutes=2))
        after = send(store, server, tmp_path, now=NOW + timedelta(days=2))

    assert "try again later" in first[0].error
    assert (again, [one.error for one in later], after) == ([], [""], [])
    assert len(server.got) == 1


def test_an_address_that_is_refused_does_not_hold_up_the_others_for_long(
    store: AlertStore, files: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    recipients = {ANNA: list(files), BEN: list(files)}
    workbook_mail.enqueue_workbooks(store, tmp_path, SNAPSHOT, recipients, files, NOW)

    with mail_server(refuse_recipient=ANNA) as server:
        send(store, server, tmp_path)
        send(store, server, tmp_path)

    assert server.envelopes == [("a@example.com", [BEN])]
    states = {one.message.recipient: one.state for one in store.deliveries()}
    assert states == {ANNA: "pending", BEN: "delivered"}
    assert "550 nobody of that name" in store.deliveries()[0].last_error.replace("b'", "").replace(", ", " ")


def test_a_process_that_ends_while_it_sends_leaves_nothing_to_be_sent_twice(
    store: AlertStore, files: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    workbook_mail.enqueue_workbooks(store, tmp_path, SNAPSHOT, {ANNA: list(files)}, files, NOW)
    assert store.claim([WORKBOOKS], NOW) is not None  # and then the process ends

    with mail_server() as server:
        send(store, server, tmp_path, now=NOW + 2 * CLAIM)

    (kept,) = store.deliveries()
    assert server.got == []
    assert (kept.state, kept.last_error) == (
        "given up",
        "the process ended while it sent this; it may have arrived",
    )


def test_alerts_go_first_and_workbooks_do_not_use_up_their_attempts(
    store: AlertStore, files: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    people = {f"p{number}@example.com": list(files) for number in range(5)}
    workbook_mail.enqueue_workbooks(store, tmp_path, SNAPSHOT, people, files, NOW)
    got: list[str] = []

    def alert(found: Message, _: str) -> str:
        got.append(found.title)
        return ""

    def workbook(found: Message, _: str) -> str:
        got.append(found.recipient)
        return ""

    for number in range(3):
        store.enqueue(message(f"m{number}"), rules_of().channels)
    deliver_all(store, {"log": alert}, {WORKBOOKS: workbook}, 3)

    assert got == ["m0", "m1", "m2", *list(people)[:3]]
    deliver_all(store, {"log": alert}, {WORKBOOKS: workbook}, 3)
    assert len(got) == 8
    assert {one.state for one in store.deliveries()} == {"delivered"}


def test_workbooks_are_given_up_where_the_channel_is_taken_out(
    store: AlertStore, files: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    workbook_mail.enqueue_workbooks(store, tmp_path, SNAPSHOT, {ANNA: list(files)}, files, NOW)

    deliver_all(store, {"log": lambda *_: ""}, {}, 3)

    (kept,) = store.deliveries()
    assert (kept.state, kept.last_error) == ("given up", "the channel is no longer configured")


def test_a_file_that_is_gone_is_told_and_given_up_in_the_end(
    store: AlertStore, files: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    workbook_mail.enqueue_workbooks(store, tmp_path, SNAPSHOT, {ANNA: list(files)}, files, NOW)
    files["region", "7"].unlink()
    now = NOW

    with mail_server() as server:
        for _ in range(ATTEMPTS):
            (attempt,) = send(store, server, tmp_path, now=now)
            assert "region-7_2030-06-03.xlsx, which cannot be read" in attempt.error
            now = store.deliveries()[0].next_at

    assert server.got == []
    assert store.deliveries()[0].state == "given up"


def test_many_workbooks_are_sent_in_parts(
    store: AlertStore,
    files: dict[tuple[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workbook_mail, "MOST_BYTES", 12)

    with mail_server() as server:
        workbook_mail.enqueue_workbooks(store, tmp_path, SNAPSHOT, {ANNA: list(files)}, files, NOW)
        send(store, server, tmp_path)

    assert [len(list(one.iter_attachments())) for one in mails(server)] == [1, 1]


def test_an_outbox_of_an_earlier_release_is_taken_over(
    store: AlertStore, files: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    store.enqueue(message("before"), rules_of().channels)
    with store._transaction() as con:
        con.execute("DROP TABLE once")
        con.execute("UPDATE deliveries SET message = json_remove(message, '$.recipient', '$.attachments')")

    new = workbook_mail.enqueue_workbooks(store, tmp_path, SNAPSHOT, {ANNA: list(files)}, files, NOW)

    assert new == 1
    assert next(one.message.title for one in store.deliveries()) == "before"


# The asset ------------------------------------------------------------------------------------------


@pytest.fixture
def mailing(copied: Landed) -> Iterator[tuple[Settings, MailServer]]:
    """A published home, and a server that its e-mail goes to."""
    with mail_server() as server:
        home = copied.settings.home
        (home / "alerts.toml").write_text(
            f'[channels.email]\nhost = "127.0.0.1"\nport = {server.port}\nsecurity = "none"\n'
            'from = "a@example.com"\nto = ["alerts@example.com"]\n'
        )
        yield copied.settings, server


def make(settings: Settings) -> dg.ExecuteInProcessResult:
    (asset,) = workbooks.build(settings)
    instance = dg.DagsterInstance.ephemeral()
    return dg.materialize([asset], selection=[common.WORKBOOKS], instance=instance, raise_on_error=False)


def told(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (event,) = result.asset_materializations_for_node("reports__workbooks")
    return {name: value.value for name, value in event.metadata.items()}


def test_a_publishing_sends_the_workbooks_asked_for(mailing: tuple[Settings, MailServer]) -> None:
    settings, server = mailing
    snapshot = current(settings.published_path)
    store = int(snapshot.read("forecasts")["store"].iloc[0])
    settings.workbook_recipients_path.write_text(
        f'[store]\n{store} = ["{ANNA}"]\n99999 = ["{ANNA}"]\n[total]\nall = ["{BEN}", "{ANNA}"]\n'
    )

    first, second = told(make(settings)), told(make(settings))

    assert (first["sent"], first["not_sent"], second["sent"]) == (2, 0, 0)
    mail, other = mails(server)
    assert [one["To"] for one in (mail, other)] == [ANNA, BEN]
    names = [part.get_filename() for part in mail.iter_attachments()]
    cutoff = snapshot.facts["cutoff"]
    assert names == [f"store-{store}_{cutoff}.xlsx", f"total_{cutoff}.xlsx"]
    book = read(next(other.iter_attachments()).get_content())
    assert book["Summary"]["A1"].value.startswith("Total: ")


def test_a_mistake_in_the_recipients_fails_the_asset_after_the_workbooks_are_made(
    mailing: tuple[Settings, MailServer],
) -> None:
    settings, server = mailing
    folder = settings.workbooks_path / current(settings.published_path).name
    for path in folder.iterdir():
        path.unlink()
    settings.workbook_recipients_path.write_text('[planet]\n1 = ["a@example.com"]\n')

    result = make(settings)

    assert not result.success
    assert len(list(folder.iterdir())) > 0
    failure = result.failure_data_for_node("reports__workbooks")
    assert failure is not None
    assert failure.error is not None
    assert RecipientsError.__name__ in str(failure.error.cause or failure.error)
    assert server.got == []


def test_without_a_channel_the_asset_says_so(mailing: tuple[Settings, MailServer]) -> None:
    settings, server = mailing
    settings.alert_rules_path.write_text("")
    settings.workbook_recipients_path.write_text(f'[total]\nall = ["{ANNA}"]\n')

    assert told(make(settings))["note"] == "no channel email in alerts.toml"
    assert server.got == []


def test_workbooks_wait_while_the_file_of_rules_is_broken_and_are_sent_once_it_is_mended(
    mailing: tuple[Settings, MailServer],
) -> None:
    settings, server = mailing
    good = settings.alert_rules_path.read_text("utf-8")
    settings.workbook_recipients_path.write_text(f'[total]\nall = ["{ANNA}"]\n')

    settings.alert_rules_path.write_text("[channels.email")
    broken = told(make(settings))
    got_meanwhile = list(server.got)
    settings.alert_rules_path.write_text(good)
    mended = told(make(settings))

    assert broken["note"] == "they wait until alerts.toml is mended"
    assert got_meanwhile == []
    assert mended["sent"] == 1
    assert [one["To"] for one in mails(server)] == [ANNA]
