"""Moving the aliases `champion` and `challenger`, with a log that every move can be undone by.

What belongs here: promotion, rollback, and how they are kept. What does not: the log itself
(champion_log.py), whether a version may be promoted (core/gate.py, registry.py), model files (registry.py).

The alias is the truth. It moves first and its log entry follows, so that a process killed in between leaves
an alias that the next change finds and logs, as it does where somebody moves it in MLflow's page.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from turnover_assets.errors import TurnoverError
from turnover_assets.storage import _mlflow
from turnover_assets.storage.champion_log import Action, Change, moment_after, read_log, succession

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

CHAMPION = "champion"
CHALLENGER = "challenger"
EARLIER_CHAMPIONS = 20  # of a release that kept no log, how many are taken over into it
BY_EARLIER_RELEASE = "Champion of an earlier release, which promoted each model that it trained."
BY_OTHERS = "The alias was moved by something else than `turnover`."


@dataclass(frozen=True)
class Champions:
    """The champions of one registered model.

    Attributes:
        client: MLflow's client.
        name: Name of the registered model.
    """

    client: "MlflowClient"
    name: str

    def aliased(self, alias: str) -> int | None:
        """The version that an alias points to; None where there is no such alias, or no model yet."""
        from mlflow.exceptions import MlflowException

        try:
            return int(self.client.get_model_version_by_alias(self.name, alias).version)
        except MlflowException:
            return None

    def log(self) -> list[Change]:
        """Every change of the champion, oldest first, with those that were found only now."""
        kept, found = self._log()
        return kept + found

    def promote(self, version: int, by: str, reason: str) -> None:
        """Make a version the champion; nothing changes where it is already.

        A challenger that is not newer has lost its case: it is one no longer.
        """
        _mlflow.model_version(self.client, self.name, version)
        log = self._complete_log()
        if self.aliased(CHAMPION) != version:
            self._move("promoted", version, log, by, reason)
        challenger = self.aliased(CHALLENGER)
        if challenger is not None and challenger <= version:
            self.client.delete_registered_model_alias(self.name, CHALLENGER)

    def challenge(self, version: int) -> None:
        """Make a version the challenger."""
        self.client.set_registered_model_alias(self.name, CHALLENGER, str(version))

    def rollback(self, by: str, reason: str) -> int:
        """Go back to the champion before, and return its number; see rollback_target."""
        log = self._complete_log()
        version = self._target(log)
        self._move("rolled back", version, log, by, reason)
        return version

    def rollback_target(self) -> int:
        """The champion before the present one; after a rollback the one before that, and so on.

        Versions that were deleted since are left out. Where the champion itself was deleted, it is the newest
        of those before it.

        Raises:
            TurnoverError: There is none.
        """
        return self._target(self.log())

    def _target(self, log: list[Change]) -> int:
        versions = _mlflow.model_versions(self.client, self.name)
        line = succession(log, {int(version.version) for version in versions})
        champion = self.aliased(CHAMPION)
        earlier = line[:-1] if line[-1:] == [champion] else line
        if not earlier:
            raise TurnoverError(
                f"There is no champion before {f'version {champion}' if champion else 'now'} to go back to. "
                "`turnover models list` shows the versions there are, and `turnover models promote VERSION "
                "--reason TEXT` makes one of them champion."
            )
        return earlier[-1]

    def _move(self, action: Action, version: int, log: list[Change], by: str, reason: str) -> None:
        self.client.set_registered_model_alias(self.name, CHAMPION, str(version))
        self._keep(Change(action, version, moment_after(log), by, reason))

    def _keep(self, change: Change) -> None:
        self.client.set_registered_model_tag(self.name, *change.tag())

    def _complete_log(self) -> list[Change]:
        """The log, after what was found has been added to it."""
        kept, found = self._log()
        for change in found:
            self._keep(change)
        return kept + found

    def _log(self) -> tuple[list[Change], list[Change]]:
        """What is kept, and what the aliases and versions tell beyond it."""
        registered = _mlflow.registered_model(self.client, self.name)
        log = read_log(registered.tags)
        if CHAMPION not in registered.aliases:
            return log, []
        champion = int(registered.aliases[CHAMPION])
        if not log:
            return [], self._before_the_log(registered, champion)
        if succession(log)[-1] == champion:
            return log, []
        return log, [Change("found", champion, moment_after(log), "unknown", BY_OTHERS)]

    def _before_the_log(self, registered: "RegisteredModel", champion: int) -> list[Change]:
        """Champions of a release that kept no log: each version up to the champion was one in its time."""
        earlier = [
            version
            for version in _mlflow.model_versions(self.client, str(registered.name))
            if int(version.version) <= champion
        ]
        return [
            Change(
                "found",
                int(version.version),
                datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
                "earlier release",
                BY_EARLIER_RELEASE,
            )
            for version in earlier[-EARLIER_CHAMPIONS:]
        ]
