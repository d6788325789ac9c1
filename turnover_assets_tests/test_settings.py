"""Settings: read from the environment once, frozen, and told apart where they are wrong."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from turnover_assets.errors import TurnoverError
from turnover_assets.panel import default_panel
from turnover_assets.settings import Settings, load_settings


def test_without_variables_everything_lies_in_var() -> None:
    settings = load_settings()

    home = Path("var").absolute()
    assert settings.landing_path == home / "landing"
    assert settings.warehouse_path == home / "warehouse.duckdb"
    assert settings.published_path == home / "published"
    assert settings.mlflow_path == home / "mlflow"
    assert settings.dagster_path == home / "dagster"
    assert settings.panel_spec == default_panel()


def test_variables_are_read_when_settings_are_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(tmp_path))
    monkeypatch.setenv("TURNOVER_THREADS", "7")
    monkeypatch.setenv("TURNOVER_TRAINING_SHARE", "0.5")

    settings = load_settings()

    assert (settings.home, settings.threads, settings.training_share) == (tmp_path, 7, 0.5)


def test_overrides_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOVER_THREADS", "7")

    assert load_settings(threads=3).threads == 3


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PANEL", "LANDING", "THREADS"):
        monkeypatch.setenv(f"TURNOVER_{name}", "")

    assert load_settings() == Settings()
    assert load_settings().panel is None


def test_settings_cannot_be_changed() -> None:
    settings = Settings()

    with pytest.raises(ValidationError, match="Instance is frozen"):
        settings.threads = 5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("THREADS", "many", "Input should be a valid integer"),
        ("THREADS", "0", "greater than or equal to 1"),
        ("TRAINING_SHARE", "1.5", "less than or equal to 1"),
        ("MEMORY_LIMIT", "a lot", "String should match pattern"),
        ("LOCK_TIMEOUT_SECONDS", "-1", "greater than 0"),
        ("KEEP_SNAPSHOTS", "1", "greater than or equal to 2"),
    ],
)
def test_a_wrong_value_names_its_variable_and_what_it_was(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"TURNOVER_{name}", value)

    with pytest.raises(TurnoverError, match=rf"TURNOVER_{name}: .*{message}.* \(got '{value}'\)"):
        load_settings()


def test_all_wrong_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOVER_THREADS", "0")
    monkeypatch.setenv("TURNOVER_SEED", "-3")

    with pytest.raises(TurnoverError, match=r"(?s)TURNOVER_THREADS: .*TURNOVER_SEED: .*Correct"):
        load_settings()


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(TurnoverError, match="TURNOVER_THREAD: Extra inputs are not permitted"):
        load_settings(thread=3)


def test_the_environment_for_a_child_gives_the_same_settings_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = load_settings(
        home="data", landing="in", threads=3, training_share=0.125, memory_limit="512MB", seed=5
    )
    expected = (settings.landing_path, settings.warehouse_path)
    environment = settings.environment()

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    child = load_settings()

    assert (child.landing_path, child.warehouse_path) == expected
    assert child.environment() == environment
    absolute = settings.model_copy(update={"home": child.home, "landing": child.landing})
    assert child.model_dump() == absolute.model_dump()


SECRETS = {
    "alert_webhook_url": "https://hooks.example.com/verysecret",
    "alert_smtp_password": "verysecret",
    "postgres_url": "postgresql://me:verysecret@db/shop",
}


def test_secrets_are_shown_nowhere_but_reach_child_processes() -> None:
    settings = load_settings(**SECRETS)

    assert "verysecret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    for name, secret in SECRETS.items():
        assert settings.environment()[f"TURNOVER_{name.upper()}"] == secret


def test_a_wrong_setting_beside_secrets_does_not_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(f"TURNOVER_{name.upper()}", secret)
    monkeypatch.setenv("TURNOVER_THREADS", "0")

    with pytest.raises(TurnoverError, match="TURNOVER_THREADS") as caught:
        load_settings()

    assert "verysecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("postgres_url", "mysql://me:verysecret@db/shop"),
        ("publish_url", "s3://key:verysecret@bucket/folder"),
        ("landing_url", "s3://bucket/folder?secret=verysecret"),
        ("artifacts_url", "verysecret"),
        ("snapshots_url", "s3://"),
        ("artifacts_url", "file:///mnt/verysecret"),
    ],
)
def test_an_address_that_cannot_be_used_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(
        TurnoverError, match=f"TURNOVER_{name.upper()}: Value error, .* is not shown"
    ) as caught:
        load_settings(**{name: value})

    assert "verysecret" not in str(caught.value)


def test_addresses_of_stores_end_without_a_slash() -> None:
    assert load_settings(publish_url="s3://bucket/folder/").publish_url == "s3://bucket/folder"
