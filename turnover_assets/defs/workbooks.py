"""Workbooks: an Excel file for each member of a level at each publishing, and e-mail of those asked for.

What belongs here: the asset. What does not: the files (storage/workbook_files.py) and their content
(core/workbook/). It reads the published snapshot, so that nothing waits for it, and the warehouse is free.
"""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.workbook.recipients import Book
from turnover_assets.defs import common
from turnover_assets.defs.alerts import secrets_of, store_of
from turnover_assets.errors import UnknownNameError
from turnover_assets.settings import Settings
from turnover_assets.storage.alert_channels import senders, workbook_senders
from turnover_assets.storage.alert_outbox import Sent, deliver
from turnover_assets.storage.alert_rules import rules_in_force
from turnover_assets.storage.comparison import snapshot_names
from turnover_assets.storage.housekeeping import size_of
from turnover_assets.storage.snapshots import Snapshot, lease
from turnover_assets.storage.workbook_files import outlived, read_recipients, write_books, write_level
from turnover_assets.storage.workbook_mail import enqueue_workbooks

CODE_VERSION = "1"
NONE = "none"
MESSAGES = 500  # sent by the asset at most; those who look for alerts send the rest


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset of the workbooks.

    Raises:
        UnknownNameError: The settings name a level that the panel has not.
    """
    level = level_of(settings)

    @dg.asset(
        key=common.WORKBOOKS,
        deps=[common.PUBLISHED],
        group_name="reports",
        description=f"An Excel file of what was published for each {level or 'member'}, and e-mail to those "
        "who asked for it.",
        owners=[common.ENGINEERS],
        kinds={"excel"},
        code_version=CODE_VERSION,
    )
    def workbooks(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        if level is None:
            return dg.MaterializeResult(metadata={"workbooks": 0, "note": "TURNOVER_WORKBOOK_LEVEL is none"})
        with lease(settings.published_path) as snapshot:
            made = write_level(
                settings.workbooks_path, snapshot, settings.panel_spec, level, processes=settings.threads
            )
            told = _mail(context, settings, snapshot, made)
        for folder in outlived(settings.workbooks_path, snapshot_names(settings.published_path)):
            shutil.rmtree(folder, ignore_errors=True)
        folder = settings.workbooks_path / snapshot.name
        return dg.MaterializeResult(
            metadata={
                "workbooks": len(made),
                "folder": dg.MetadataValue.path(str(folder)),
                "bytes": size_of(folder),
                "snapshot": snapshot.name,
                **told,
            }
        )

    return [workbooks]


def level_of(settings: Settings) -> str | None:
    """The level for whose members workbooks are made; None where none are.

    Raises:
        UnknownNameError: The panel has no such level.
    """
    panel = settings.panel_spec
    wanted = settings.workbook_level or panel.level_names[-1]
    if wanted == NONE:
        return None
    if wanted not in (levels := [*panel.level_names, TOTAL]):
        raise UnknownNameError("level of TURNOVER_WORKBOOK_LEVEL", wanted, [*levels, NONE])
    return wanted


def _mail(
    context: dg.AssetExecutionContext, settings: Settings, snapshot: Snapshot, made: Mapping[Book, Path]
) -> dict[str, Any]:
    """Send workbooks to those who asked for them; gives what there is to tell."""
    recipients = read_recipients(settings.workbook_recipients_path, settings.panel_spec)
    if not recipients:
        return {}
    wanted = [book for books in recipients.values() for book in books]
    others = write_books(
        settings.workbooks_path, snapshot, settings.panel_spec, wanted, made, processes=settings.threads
    )
    if unknown := sorted({book for book in wanted if book not in {*made, *others}}):
        context.log.warning("No forecasts of %s, which some asked for.", _named(unknown))
    store, home = store_of(settings), settings.home.absolute()
    rules, problem = rules_in_force(settings.alert_rules_path, settings.panel_spec)
    mail = workbook_senders(rules.channels, secrets_of(settings), home)
    if not mail and not problem:
        context.log.warning("%s has no channel email, so no workbook is sent.", settings.alert_rules_path)
        return {"sent": 0, "note": "no channel email in alerts.toml"}
    enqueue_workbooks(store, home, snapshot, recipients, {**made, **others}, datetime.now(UTC))
    if problem:
        context.log.warning(problem)
        return {"sent": 0, "note": "they wait until alerts.toml is mended"}
    alerts = senders(rules.channels, secrets_of(settings), home, context.log.info)
    return _told(context, deliver(store, mail, MESSAGES, others=alerts))


def _told(context: dg.AssetExecutionContext, sent: list[Sent]) -> dict[str, Any]:
    failed = [attempt for attempt in sent if attempt.error]
    for attempt in failed:
        message = attempt.delivery.message
        context.log.warning("%s was not sent to %s: %s", message.title, message.recipient, attempt.error)
    return {"sent": len(sent) - len(failed), "not_sent": len(failed)}


def _named(books: list[Book]) -> str:
    return ", ".join(f"{level} {member}".strip() for level, member in books)
