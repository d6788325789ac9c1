"""The outbox: sending what waits there, some messages at a time, whatever fails.

What belongs here: claiming, sending, and noting what came of it. What does not: the tables (alert_store.py),
and how a message is sent (alert_channels.py).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from turnover_assets.storage._alert_tables import Delivery
from turnover_assets.storage.alert_channels import DeliveryError, Send
from turnover_assets.storage.alert_store import AlertStore


@dataclass(frozen=True)
class Sent:
    """What came of one attempt: the delivery, and why it failed; empty where it did not."""

    delivery: Delivery
    error: str


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def deliver(
    store: AlertStore,
    senders: Mapping[str, Send],
    limit: int,
    *,
    due_only: bool = True,
    others: Collection[str] = (),
    give_up: bool = True,
    now: Callable[[], datetime] = utc_now,
) -> list[Sent]:
    """Send messages that wait; a channel that fails once is left alone for this time.

    Args:
        store: The store.
        senders: What sends through each channel.
        limit: Attempts at most.
        due_only: Leave those that wait for their next attempt.
        others: Channels that are configured as well, whose messages are left for another time.
        give_up: Whether messages for any other channel are given up; not where the channels are not known.
        now: The clock.

    Raises:
        HomeError: The store cannot be read or written; what fails in a channel never raises.
    """
    if give_up:
        store.give_up_others([*senders, *others], now())
    working, above, name = dict(senders), 0, store.name()
    sent: list[Sent] = []
    while working and len(sent) < limit:
        delivery = store.claim(list(working), now(), due_only=due_only, above=above)
        if delivery is None:
            break
        above = delivery.delivery_id
        error = _attempt(store, working[delivery.channel], delivery, f"{name}.{above}", now)
        sent.append(Sent(delivery, error))
        if error:
            del working[delivery.channel]
    return sent


def deliver_all(
    store: AlertStore,
    alerts: Mapping[str, Send],
    workbooks: Mapping[str, Send],
    limit: int,
    *,
    due_only: bool = True,
    give_up: bool = True,
) -> list[Sent]:
    """Send alerts that wait, then workbooks, of each as many as the limit: neither holds up the other.

    Raises:
        HomeError: The store cannot be read or written; what fails in a channel never raises.
    """
    how: dict[str, Any] = {"due_only": due_only, "give_up": give_up}
    first = deliver(store, alerts, limit, others=workbooks, **how)
    return first + deliver(store, workbooks, limit, others=alerts, **how)


def _attempt(
    store: AlertStore, send: Send, delivery: Delivery, name: str, now: Callable[[], datetime]
) -> str:
    """Send a claimed message and note what came of it; returns why it failed."""
    try:
        remark = send(delivery.message, name)
    except DeliveryError as error:
        store.failed(delivery, now(), str(error))
        return str(error)
    except Exception as error:  # noqa: BLE001 - a fault of ours in one message must not hold up the others
        store.failed(delivery, now(), f"{type(error).__name__} in the channel {delivery.channel}")
        return type(error).__name__
    store.delivered(delivery, now(), remark)
    return ""
