"""Exceptions of the platform.

What belongs here: one class for each failure that a caller tells apart. Each is built from facts,
gathers all that is wrong, and ends with what to do. What does not: messages for the log.
"""

from collections.abc import Sequence
from pathlib import Path


class TurnoverError(Exception):
    """Anything that the user can act on; the command line prints its message without a traceback."""


class FileProblemsError(TurnoverError):
    """A file that a person wrote and that cannot be used; which file is the subclass's to say.

    Args:
        source: The file, or what stood in its place.
        problems: Pairs of (place in the file, what is wrong there), all of them.
    """

    subject = "{source} has"  # the beginning of the message
    remedy = "Correct {source} and try again."  # its end

    def __init__(self, source: str, problems: Sequence[tuple[str, str]]) -> None:
        self.source, self.problems = source, tuple(problems)
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        lines = [f"  - {where}: {what}" if where else f"  - {what}" for where, what in problems]
        head, end = (text.replace("{source}", source) for text in (self.subject, self.remedy))
        super().__init__("\n".join([f"{head} {count}:", *lines, end]))


class PanelError(FileProblemsError):
    """A panel file that cannot be used."""

    subject = "The panel file {source} has"
    remedy = "Correct {source} and try again; docs/configuration.md describes every field."


class PanelChangedError(TurnoverError):
    """A panel that a home which was built with another one cannot go on with.

    Args:
        name: Name of the panel.
        home: The home.
        problems: Pairs of (place in the panel file, what changed there), all of them.
        copy: Where the panel stands that the home's newest file was read with.
    """

    def __init__(self, name: str, home: Path, problems: Sequence[tuple[str, str]], copy: Path) -> None:
        self.problems = tuple(problems)
        lines = [f"  - {where}: {what}" for where, what in problems]
        super().__init__(
            f"The panel {name!r} is not the one that the home {home} was built with:\n"
            + "\n".join(lines)
            + f"\nNothing was changed. Undo that in the panel file ({copy} is the panel as it was), or set "
            "TURNOVER_HOME to another folder and land the files there again. A new table, or new names of "
            "columns in the files, can be used once a new file has them: put it into the landing folder and "
            "run again."
        )


class LedgerError(FileProblemsError):
    """A ledger of adjustments that cannot be used."""

    subject = "The ledger {source} has"
    remedy = (
        "Correct them and try again; `turnover adjustments check` lists what is left. Until then nothing "
        "is cleaned, and what was published stays."
    )


class LedgerMovedError(TurnoverError):
    """A ledger that somebody has changed since it was looked at."""

    def __init__(self, source: str) -> None:
        super().__init__(
            f"The ledger {source} was changed by somebody else meanwhile. Nothing was written; look at how "
            "things stand now, and decide again."
        )


class AlertRulesError(FileProblemsError):
    """A file of alert rules that cannot be used."""

    subject = "The alert rules in {source} have"
    remedy = (
        "Correct them and try again; `turnover alerts check` lists what is left. Until then the "
        "shipped rules apply, and messages go to the log alone."
    )


class RecipientsError(FileProblemsError):
    """A file of recipients of workbooks that cannot be used."""

    subject = "The recipients of workbooks in {source} have"
    remedy = (
        "Correct them; the next publishing sends its workbooks. Until then none is sent, and those that were "
        "made are in reports/workbooks of the home."
    )


class UnreadableFileError(TurnoverError):
    """A landed file whose content cannot be read or fits no known kind. The reason is for the manifest."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class NothingToForecastError(TurnoverError):
    """There is no usable history, so nothing can be published."""


class HomeError(TurnoverError):
    """The data home cannot be used (missing permission, no space, not a folder)."""

    def __init__(self, home: Path, problem: str, remedy: str) -> None:
        self.home = home
        super().__init__(f"The data home {home} cannot be used: {problem}. {remedy}")


class NewerHomeError(TurnoverError):
    """A home, or a part of it, that a newer release has changed.

    Args:
        what: What it is, with its path, as the beginning of a sentence.
        version: The version that it has.
        known: The newest version that this release knows.
        release: The release that used it last; empty where that is not known.
        this: This release.
    """

    def __init__(self, what: str, version: int, known: int, release: str, this: str) -> None:
        by = f"a newer release ({release}, " if release else "a newer release ("
        super().__init__(
            f"{what} was written by {by}schema {version}; this is release {this}, which knows {known}). "
            "Nothing was changed. Use that release or a newer one, put back a backup from before the upgrade "
            "with `turnover restore`, or name another TURNOVER_HOME."
        )


class WarehouseBusyError(TurnoverError):
    """Another process kept the warehouse to itself for longer than the time limit."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__(
            f"The warehouse {path} was in use by another process for more than {seconds:.0f} s. "
            "Wait for that run to end (turnover ui shows it), or close the program that has the file open, "
            "and try again, "
            "or raise TURNOVER_LOCK_TIMEOUT_SECONDS."
        )


class NoSnapshotError(TurnoverError):
    """Nothing has been published yet, or the published snapshot cannot be read."""


class ModelRefusedError(TurnoverError):
    """A published model that is not taken into use; the message is the reason, without a remedy."""


class QuestionError(TurnoverError):
    """A what-if question that cannot be answered as it was asked.

    Args:
        field: The part of the question that is wrong, for example `covariates.0.values.price`.
        detail: What is wrong with it.
        remedy: What to do about it.
    """

    def __init__(self, field: str, detail: str, remedy: str) -> None:
        self.field, self.detail, self.remedy = field, detail, remedy
        super().__init__(f"{field}: {detail} {remedy}")


class PublishError(TurnoverError):
    """A snapshot could not be written; the one published before stays current."""


class ChecksFailedError(TurnoverError):
    """Blocking checks failed, so nothing that rests on their tables was made.

    Args:
        problems: Pairs of (asset and check, what was found and what to do), all of them.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        lines = [f"  - {where}: {what}" for where, what in problems]
        super().__init__(
            "Nothing was published, and what was published before stays. What holds it up:\n"
            + "\n".join(lines)
        )


class UnknownNameError(TurnoverError):
    """A name that is not among those available.

    Args:
        what: The kind of thing asked for, for example "table".
        name: The name asked for.
        available: The names there are.
    """

    def __init__(self, what: str, name: str, available: Sequence[str]) -> None:
        self.name, self.available = name, tuple(available)
        super().__init__(f"There is no {what} named {name!r}. Available: {', '.join(sorted(available))}.")


class ObjectStoreError(TurnoverError):
    """An object store cannot be used, or what it holds is not what it should be.

    Args:
        url: The address that was used.
        what: What could not be done with it: `listed`, `read`, `written`.
        problem: Why.
    """

    def __init__(self, url: str, what: str, problem: str) -> None:
        self.url = url
        super().__init__(
            f"The object store {url} cannot be {what}: {problem.rstrip('.')}. Nothing in the home was lost. "
            "Check the address, the network, the credentials (AWS_ACCESS_KEY_ID, a profile or a role), and "
            "AWS_ENDPOINT_URL_S3 where the store is not AWS's own; `turnover doctor` looks again."
        )


class PostgresCopyError(TurnoverError):
    """The copy in Postgres cannot be brought up to date; what was there before stays.

    Args:
        place: Which database, without password.
        problem: Why.
        remedy: What to do.
    """

    def __init__(self, place: str, problem: str, remedy: str) -> None:
        super().__init__(
            f"The tables in {place} cannot be brought up to date: {problem.rstrip('.')}. What was there "
            f"before stays, and so does what was published. {remedy}"
        )
