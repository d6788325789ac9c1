"""The one reader of the environment: frozen settings from TURNOVER_* variables.

What belongs here: what an operator may set, its default and its bounds, and the paths inside the
data home. What does not: what describes a retailer's data (panel.py).
"""

import os
import re
from datetime import timedelta
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from zoneinfo import available_timezones

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from turnover_assets.errors import TurnoverError
from turnover_assets.panel import PanelSpec, load_panel

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SPARE_DAYS = 2  # beyond a period, for a weekend or a slow feed
LogFormat = Literal["text", "json"]
CRON = r"^\S+( \S+){4}$"
PREFIX = "TURNOVER_"
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^?#@]*[^?#@/]")  # no user, password or options: often secrets
POSTGRES_SCHEMES = ("postgresql://", "postgres://")
MLFLOW_URI = "TURNOVER_MLFLOW_URI"
POSTGRES = re.compile(r"(?:postgresql(?:\+psycopg2)?|postgres)://(?=.)")
OTHERS_USE = frozenset({"TURNOVER_TEST_DATA"})  # read by the tests
RESULT_SETTINGS = (
    "training_share",
    "max_training_rows",
    "threads",
    "seed",
    "alive_periods",
    "adjustment_strength",
    "backtest_windows",
)


class Settings(BaseSettings):
    """What an operator may set; every field is read from TURNOVER_<NAME>.

    Example:
        >>> Settings(home="/data/turnover").warehouse_path.as_posix()
        '/data/turnover/warehouse.duckdb'
    """

    # An empty variable is one that is not set: compose files and CI write them so.
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    home: Path = Field(Path("var"), description="Folder that holds everything the platform writes.")
    panel: Path | None = Field(None, description="Panel file (TOML); without it the default panel.")
    landing: Path | None = Field(None, description="Folder watched for files; default <home>/landing.")
    landing_url: str | None = Field(
        None, description="Object store from which new objects are copied into that folder."
    )
    publish_url: str | None = Field(None, description="Object store that published snapshots are copied to.")
    snapshots_url: str | None = Field(
        None, description="Object store that serving follows in place of the home's snapshots."
    )
    artifacts_url: str | None = Field(
        None, description="Object store of the files of new models; default <home>/mlflow."
    )
    postgres_url: SecretStr | None = Field(
        None, description="Database that published tables are copied to; a secret."
    )
    postgres_schema: str = Field(
        "turnover", pattern=r"^[a-z][a-z0-9_]{0,62}$", description="Its schema, which is this home's alone."
    )
    dagster_config: Path | None = Field(
        None, description="Dagster's instance configuration; default the embedded one."
    )
    mlflow_uri: SecretStr | None = Field(
        None, description="Postgres database of MLflow's records; default a file in the home. A secret."
    )
    training_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Share of past cutoffs used as training rows; for the next period, four times it.",
    )
    max_training_rows: int = Field(2_000_000, ge=1000, description="Upper bound of training rows.")
    threads: int = Field(
        2, ge=1, description="Threads for DuckDB and model training, and processes that write workbooks."
    )
    memory_limit: str = Field(
        "4GB", pattern=r"^\d+(\.\d+)?\s*(MB|GB|TB|MiB|GiB|TiB)$", description="DuckDB's memory limit."
    )
    seed: int = Field(20260101, ge=0, description="Seed of everything that draws.")
    alive_periods: int = Field(
        4, ge=1, description="A series is alive where it reported within this many periods."
    )
    lock_timeout_seconds: float = Field(
        900, gt=0, description="How long to wait for another process that uses the home."
    )
    minimum_coverage: float = Field(
        0.5, ge=0, le=1, description="Least share of the expected series in the newest period to go on."
    )
    minimum_kept: float = Field(
        0.9, ge=0, le=1, description="Least number of cleaned rows to go on, as a share of those before."
    )
    late_after_days: float | None = Field(
        None, ge=0.01, description="Days without new data until it is late; default a period and two days."
    )
    adjustment_strength: float = Field(
        4.0, gt=0, description="Strength of evidence from which a detector's adjustment applies by itself."
    )
    backtest_windows: int = Field(
        5,
        ge=1,
        description="Windows of the backtest, a horizon apart; the first two teach, the others compare.",
    )
    retrain_every: int | None = Field(
        None, ge=1, description="Periods after which to retrain anyway; default the panel's horizon."
    )
    retrain_changed_share: float = Field(
        0.01, ge=0, description="Share of the history trained on that may change before retraining."
    )
    retrain_accuracy_ratio: float = Field(
        1.25, gt=1, description="Published accuracy over the promised one, both against naive, to retrain at."
    )
    retrain_drifted_share: float = Field(
        0.3, gt=0, le=1, description="Share of the features that may have drifted before retraining."
    )
    retrain_bias: float = Field(
        0.1, gt=0, description="Bias of published forecasts in total, either way, before retraining."
    )
    promotion_margin: float = Field(
        0.01, ge=0, lt=1, description="Least relative improvement of WAPE for a challenger to be promoted."
    )
    promotion_level: float = Field(
        0.05, gt=0, lt=1, description="Level of the test that a challenger is better, one-sided."
    )
    keep_snapshots: int = Field(20, ge=2, description="Published snapshots kept.")
    keep_run_days: int = Field(
        90, ge=1, description="Days for which records and logs of runs are kept, beyond those needed."
    )
    keep_models: int = Field(
        20, ge=1, description="Newest model versions kept, and former champions to go back to."
    )
    keep_shadow_cutoffs: int = Field(
        104, ge=1, description="Cutoffs whose forecasts of challenger and baseline are kept."
    )
    keep_reports: int = Field(60, ge=1, description="Pages of monitoring kept.")
    workbook_level: str | None = Field(
        None,
        description="Level for whose members workbooks are made at each publishing, `total`, or `none`; "
        "default the panel's last level.",
    )
    sensor_interval_seconds: int = Field(
        30, ge=1, description="Seconds between two looks of a sensor at the landing folder."
    )
    sensor_attempts: int = Field(3, ge=1, description="Automatic attempts for one cause.")
    timezone: str = Field("UTC", description="Time zone of schedules, as the IANA database names it.")
    weekly_schedule: str = Field(
        "0 6 * * 1",
        pattern=CRON,
        description="When the weekly look is due, in cron's five fields, in that time zone.",
    )
    housekeeping_schedule: str = Field(
        "30 2 * * *",
        pattern=CRON,
        description="When housekeeping is due, in cron's five fields, in that time zone.",
    )
    alert_webhook_url: SecretStr | None = Field(
        None, description="Address that alerts are posted to; a secret."
    )
    alert_smtp_password: SecretStr | None = Field(
        None, description="Password of the mail server that sends alerts."
    )
    api_host: str = Field("127.0.0.1", description="Address that the REST API listens on.")
    api_port: int = Field(8000, ge=0, le=65535, description="Port of the REST API; 0 takes a free one.")
    dashboard_host: str = Field("127.0.0.1", description="Address that the dashboard listens on.")
    dashboard_port: int = Field(
        8050, ge=0, le=65535, description="Port of the dashboard; 0 takes a free one."
    )
    snapshot_poll_seconds: float = Field(
        2.0, gt=0, description="Seconds between two looks of servers at what is published."
    )
    api_page_rows: int = Field(
        100_000, ge=1, le=10_000_000, description="Most rows of one page of the REST API."
    )
    api_body_bytes: int = Field(1_000_000, ge=1, description="Longest body that the REST API reads.")
    api_address_bytes: int = Field(
        8_000, ge=100, le=60_000, description="Longest path and query that the REST API takes."
    )
    api_threads: int = Field(4, ge=1, description="Threads that answer questions to the REST API.")
    api_waiting: int = Field(64, ge=0, description="Questions that may wait for one of these threads.")
    api_seconds: float = Field(
        15.0, gt=0, description="Seconds after which the REST API gives up on a question."
    )
    what_if_threads: int = Field(1, ge=1, description="Threads that answer what-if questions.")
    what_if_waiting: int = Field(4, ge=0, description="What-if questions that may wait for one of them.")
    what_if_seconds: float = Field(
        20.0, gt=0, description="Time that a what-if question may take, waiting included."
    )
    api_client_seconds: float = Field(
        10.0, gt=0, description="Seconds in which a client must send its request, and go on reading."
    )
    api_stale_after_days: float | None = Field(
        None, gt=0, description="Age of forecasts from which the service is not ready; default the horizon."
    )
    api_broken_seconds: float = Field(
        300.0, ge=0, description="Seconds that the newest snapshot may be unusable before it is not ready."
    )
    api_shutdown_seconds: int = Field(
        20, ge=0, description="Seconds in which requests are finished when the service ends."
    )
    log_format: LogFormat = Field(
        "text", description="How logs and progress are written: text for people, json for programs."
    )

    api_rate: str = Field(
        "1200/minute",
        description="Requests of a key, token or user that has no rate of its own; or unlimited.",
    )
    api_allowed_origins: str = Field(
        "", description="Origins whose pages may call the API from a browser, with commas between."
    )
    allowed_hosts: str = Field(
        "", description="Host names that the servers answer to, with commas between; by default any."
    )
    trusted_proxies: str = Field(
        "127.0.0.1,::1", description="Addresses or networks of proxies whose headers are believed."
    )
    proxy_user_header: str | None = Field(
        None, pattern=r"^[A-Za-z0-9-]+$", description="Header in which those proxies name the user."
    )
    proxy_user_scopes: str = Field("read", description="Scopes of users that a proxy names.")
    metrics_networks: str = Field(
        "127.0.0.1,::1", description="Addresses or networks that may read /metrics without a key."
    )
    oidc_issuer: str | None = Field(None, description="Issuer of OIDC tokens that are accepted.")
    oidc_audience: str | None = Field(None, description="Audience that those tokens must be meant for.")
    oidc_jwks_url: str | None = Field(
        None, description="Address of the issuer's keys; default as its discovery document says."
    )
    oidc_algorithms: str = Field("RS256,ES256", description="Algorithms that tokens may be signed by.")
    oidc_scopes_claim: str = Field("scope", description="Claim that scopes are read from; a.b is within a.")
    oidc_scope_map: str = Field(
        "",
        description="Scopes by value of that claim, as value=read+what-if,…; default the scopes' own names.",
    )
    oidc_leeway_seconds: int = Field(
        60, ge=0, le=300, description="Seconds by which the issuer's clock may differ."
    )
    session_hours: float = Field(
        12, gt=0, le=720, description="Hours after which the web page asks to sign in again."
    )
    audit_flush_seconds: float = Field(
        5, gt=0, le=3600, description="Seconds after which the audit is on disk at the latest."
    )
    audit_body_bytes: int = Field(
        4096, ge=0, le=1_000_000, description="Bytes of a request's body that the audit keeps."
    )
    keep_audit_days: int = Field(90, ge=1, description="Days for which the audit is kept.")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("is no time zone of the IANA database, such as Europe/Paris")
        return value

    @field_validator("landing_url", "publish_url", "snapshots_url", "artifacts_url")
    @classmethod
    def _of_object_store(cls, value: str | None) -> str | None:
        value = value.rstrip("/") if value else value
        if value and not ADDRESS.fullmatch(value):
            raise ValueError(
                "is no address such as s3://bucket/folder, without user, password and options in it"
            )
        return value

    @field_validator("artifacts_url")
    @classmethod
    def _in_a_store(cls, value: str | None) -> str | None:
        if value and value.startswith(("file:", "local:")):
            raise ValueError(
                "is a folder of this machine; models' files are in the home unless a store has them"
            )
        return value

    @field_validator("postgres_url")
    @classmethod
    def _of_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(POSTGRES_SCHEMES):
            raise ValueError(f"begins with none of {', '.join(POSTGRES_SCHEMES)}")
        return value

    @field_validator("mlflow_uri")
    @classmethod
    def _in_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not POSTGRES.match(value.get_secret_value()):
            raise ValueError("is no address such as postgresql://user:password@host:5432/database")
        return value

    @property
    def landing_path(self) -> Path:
        """The folder that is watched for landed files."""
        return (self.landing or self.home / "landing").absolute()

    @property
    def warehouse_path(self) -> Path:
        """The DuckDB file; only its one writer opens it."""
        return self.home.absolute() / "warehouse.duckdb"

    @property
    def fingerprints_path(self) -> Path:
        """What is remembered of files in the landing folder, so that only new ones are read; a cache."""
        return self.home.absolute() / "fingerprints.json"

    @property
    def published_path(self) -> Path:
        """Folder of the published snapshots and the CURRENT pointer."""
        return self.home.absolute() / "published"

    @property
    def landed_objects_path(self) -> Path:
        """What is remembered of objects that were copied into the landing folder."""
        return self.home.absolute() / "landed_objects.json"

    @property
    def followed_path(self) -> Path:
        """Folder of snapshots that were fetched from an object store, laid out as the published ones."""
        return self.home.absolute() / "followed"

    @property
    def served_path(self) -> Path:
        """Folder of the snapshots that are served: the published ones, or those that are followed."""
        return self.followed_path if self.snapshots_url else self.published_path

    @property
    def mlflow_path(self) -> Path:
        """Folder of models' files, and of MLflow's SQLite store where no database is named."""
        return self.home.absolute() / "mlflow"

    @property
    def mlflow_database(self) -> str:
        """Address of MLflow's database with password and driver; empty where SQLite in the home is used."""
        return with_driver(self.mlflow_uri.get_secret_value() if self.mlflow_uri else "")

    @property
    def dagster_path(self) -> Path:
        """DAGSTER_HOME: run history, event logs, sensor ticks."""
        return self.home.absolute() / "dagster"

    @property
    def decisions_path(self) -> Path:
        """The log of automatic decisions."""
        return self.home.absolute() / "decisions.sqlite"

    @property
    def profile_page_path(self) -> Path:
        """The page on what the cleaned tables hold."""
        return self.home.absolute() / "reports" / "profile.html"

    @property
    def monitoring_pages_path(self) -> Path:
        """Folder of the monitoring pages, one for each cutoff."""
        return self.home.absolute() / "reports" / "monitoring"

    @property
    def workbooks_path(self) -> Path:
        """Folder of the workbooks, a folder for each snapshot."""
        return self.home.absolute() / "reports" / "workbooks"

    @property
    def workbook_recipients_path(self) -> Path:
        """The file of who gets which workbook by e-mail; it need not be there."""
        return self.home.absolute() / "workbook_recipients.toml"

    @property
    def evidently_pages_path(self) -> Path:
        """Folder of Evidently's reports, a folder for each cutoff."""
        return self.home.absolute() / "reports" / "evidently"

    @property
    def ledger_path(self) -> Path:
        """The steward's ledger of adjustments; it need not be there."""
        return self.home.absolute() / "adjustments.toml"

    @property
    def alert_rules_path(self) -> Path:
        """The file of alert rules and channels; it need not be there."""
        return self.home.absolute() / "alerts.toml"

    @property
    def alerts_path(self) -> Path:
        """Folder of what belongs to alerts."""
        return self.home.absolute() / "alerts"

    @property
    def incidents_path(self) -> Path:
        """The incidents, and the messages on them that are under way; it need not be there."""
        return self.alerts_path / "alerts.sqlite"

    @property
    def keys_path(self) -> Path:
        """The API keys; only their owner can read the file. It need not be there."""
        return self.home.absolute() / "keys.sqlite"

    @property
    def session_secret_path(self) -> Path:
        """What sessions of the web page are signed with; made at its first start."""
        return self.home.absolute() / "session.secret"

    @property
    def audit_path(self) -> Path:
        """Folder of the audit of requests, a folder for each day."""
        return self.home.absolute() / "audit"

    @cached_property
    def panel_spec(self) -> PanelSpec:
        """The panel, read and validated once."""
        return load_panel(self.panel)

    @property
    def late_after(self) -> timedelta:
        """Age of landed data from which it is late."""
        return timedelta(days=self.late_after_days or self.panel_spec.frequency.days + SPARE_DAYS)

    @property
    def api_stale_after(self) -> timedelta:
        """Age of published forecasts from which they are not worth serving."""
        panel = self.panel_spec
        return timedelta(days=self.api_stale_after_days or panel.horizon * panel.frequency.days)

    @property
    def result_settings(self) -> dict[str, Any]:
        """The settings that change the published numbers, by name."""
        return {name: getattr(self, name) for name in RESULT_SETTINGS}

    @property
    def result_version(self) -> str:
        """Fingerprint of the settings that change the published numbers."""
        return sha256(repr(tuple(self.result_settings.values())).encode()).hexdigest()[:12]

    def environment(self) -> dict[str, str]:
        """The same settings as environment variables, for child processes; secrets are among them.

        Relative paths are made absolute, so that a child with another working folder agrees.
        """
        values: dict[str, str] = {}
        for name, value in self.model_dump(exclude_none=True).items():
            values[f"{PREFIX}{name.upper()}"] = _for_child(value)
        return values


def with_driver(address: str) -> str:
    """An address of Postgres for SQLAlchemy 2.1, which would take psycopg 3 by itself; we have psycopg 2."""
    return POSTGRES.sub("postgresql+psycopg2://", address, count=1)


def usable_settings() -> tuple[Settings, str]:
    """The settings of the environment, with the default in place of each that cannot be used; and why not."""
    try:
        return load_settings(), ""
    except TurnoverError as problem:
        try:
            Settings()
        except ValidationError as error:
            wrong = {str(issue["loc"][0]) for issue in error.errors()}
            defaults = {name: Settings.model_fields[name].get_default() for name in wrong}
            return Settings(**defaults), " ".join(line.strip() for line in str(problem).splitlines()[1:-1])
        raise


def unknown_variables() -> dict[str, str]:
    """TURNOVER_ variables that are no setting, each with the one that is nearest to it, if any is near."""
    known = [name.upper() for name in Settings.model_fields]
    given = sorted({*os.environ} - OTHERS_USE)
    unknown = [name for name in given if name.upper().startswith(PREFIX)]
    unknown = [name for name in unknown if name.upper().removeprefix(PREFIX) not in known]
    nearest = {name: get_close_matches(name.upper().removeprefix(PREFIX), known, 1) for name in unknown}
    return {name: PREFIX + near[0] if near else "" for name, near in nearest.items()}


class _LogSettings(BaseSettings):
    """The format of logs alone: it must be known before anything else can be told, even of wrong settings."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore")

    log_format: LogFormat = "text"


def wanted_log_format() -> LogFormat:
    """The format that the environment asks for; text where it asks for something that there is not."""
    try:
        return _LogSettings().log_format
    except ValidationError:
        return "text"


def _for_child(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value.absolute() if isinstance(value, Path) else value)


def _given(issue: "ErrorDetails") -> str:
    """What was given for a setting, unless there may be a secret in it."""
    name = str(issue["loc"][0])
    field = Settings.model_fields.get(name)
    is_secret = field is not None and SecretStr in get_args(field.annotation)
    if is_secret or name.endswith("_url"):
        return "what was given may hold a secret and is not shown"
    return f"got {issue['input']!r}"


def load_settings(**overrides: Any) -> Settings:
    """Read the environment, with overrides; a wrong value gives one readable error."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "\n".join(
            f"  - {PREFIX}{str(issue['loc'][0]).upper()}: {issue['msg']} ({_given(issue)})"
            for issue in error.errors()
        )
        raise TurnoverError(
            f"Some settings cannot be used:\n{problems}\nCorrect the environment variables named."
        ) from None
