"""The doctor's look at messages: those that arrive, that wait, and that were given up."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from turnover_assets.core.alerts.channels import LogChannel, Severity
from turnover_assets.core.alerts.incidents import Message
from turnover_assets.storage.alert_channels import DeliveryError
from turnover_assets.storage.alert_outbox import deliver
from turnover_assets.storage.alert_store import ATTEMPTS, AlertStore
from turnover_assets_tests.factories import settings_for
from turnover_assets_tests.test_doctor import look


def message(at: datetime) -> Message:
    return Message("opened", Severity.WARNING, "Accuracy lost", (), "", at)


def test_messages_that_do_not_arrive_are_told_with_the_reason(tmp_path: Path) -> None:
    settings, now = settings_for(tmp_path / "var"), datetime.now(UTC)
    store = AlertStore(settings.incidents_path)
    log = {"log": LogChannel()}
    store.enqueue(message(now), log)
    (delivery,) = deliver(store, {"log": lambda *_: ""}, 1)
    assert delivery.error == ""
    assert [f.level for f in look(settings, "alert messages")] == ["ok"]

    def refuse(*_: object) -> str:
        raise DeliveryError("the server answered 503")

    store.enqueue(message(now - timedelta(hours=2)), log)
    deliver(store, {"log": refuse}, 1)
    (waiting,) = look(settings, "alert messages")
    assert (waiting.level, "the server answered 503" in waiting.found) == ("warning", True)

    for _ in range(ATTEMPTS - 1):
        deliver(store, {"log": refuse}, 1, due_only=False)
    (lost,) = look(settings, "alert messages")
    assert lost.level == "problem"
    assert "1 message by log (the server answered 503) was given up" in lost.found
    assert "alerts test" in lost.remedy


def test_what_was_given_up_with_its_channel_is_no_problem(tmp_path: Path) -> None:
    settings, now = settings_for(tmp_path / "var"), datetime.now(UTC)
    store = AlertStore(settings.incidents_path)
    store.enqueue(message(now), {"log": LogChannel()})

    assert store.give_up_others(["webhook"], now) == 1

    assert [f.level for f in look(settings, "alert messages")] == ["ok"]
