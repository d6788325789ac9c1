"""API keys: their form, the file of them, and the commands."""

import json
import re
import stat
import string
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core.api_keys import (
    ALPHABET,
    ID_LENGTH,
    KEY_PATTERN,
    SECRET_LENGTH,
    Rate,
    compose_key,
    key_digest,
    key_id_of,
    parse_rate,
)
from turnover_assets.errors import HomeError, TurnoverError
from turnover_assets.serving.access.keyring import LOOK_SECONDS, Keyring, WrongKeyError
from turnover_assets.storage.api_keys import KeyStore

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
ids = st.text(ALPHABET, min_size=ID_LENGTH, max_size=ID_LENGTH)
secrets = st.text(ALPHABET, min_size=SECRET_LENGTH, max_size=SECRET_LENGTH)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "home" / "keys.sqlite")


# Their form --------------------------------------------------------------------------------------


@given(ids, secrets)
def test_a_key_tells_its_id_and_scanners_find_it(key_id: str, secret: str) -> None:
    key = compose_key(key_id, secret)

    assert key_id_of(key) == key_id
    assert re.findall(KEY_PATTERN, f"API_KEY='{key}'\n") == [key]


@given(ids, secrets, st.data())
def test_a_mistyped_key_is_told_from_a_right_one(key_id: str, secret: str, data: st.DataObject) -> None:
    key = compose_key(key_id, secret)
    place = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.sampled_from(sorted({*ALPHABET} - {key[place]})))

    assert key_id_of(key[:place] + other + key[place + 1 :]) is None
    assert key_id_of(key[:place]) is None
    assert key_id_of(key + other) is None


@pytest.mark.parametrize("text", ["", "ta_", "ta__", "ß" * 50, "\n", compose_key("A" * 8, "b" * 32) + "\n"])
def test_what_is_no_key_has_no_id(text: str) -> None:
    assert key_id_of(text) is None


def test_secrets_have_190_bits_and_use_the_whole_alphabet(store: KeyStore) -> None:
    drawn = [store.create(str(n), ["read"], NOW).secret.split("_") for n in range(60)]

    assert len({tuple(parts) for parts in drawn}) == 60
    assert SECRET_LENGTH * 5.95 > 190
    assert set(ALPHABET) == {*string.ascii_letters, *string.digits}
    counts = Counter("".join(secret[:SECRET_LENGTH] for _, _, secret in drawn))
    assert len(counts) == len(ALPHABET)
    assert max(counts.values()) < 3 * 60 * SECRET_LENGTH / len(ALPHABET)


@pytest.mark.parametrize("text", ["600/minute", "1/second", "10/hour", "100000/day"])
def test_a_rate_reads_as_it_is_written(text: str) -> None:
    assert str(parse_rate(text)) == text


@pytest.mark.parametrize("text", ["", "0/minute", "-1/minute", "1.5/minute", "600", "600/week", "1 /minute"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate such as 600/minute"):
        parse_rate(text)


def test_no_limit_is_a_rate_too() -> None:
    assert parse_rate("unlimited") is None
    assert parse_rate("600/minute") == Rate(600, 60)


# The file of them --------------------------------------------------------------------------------


def test_the_file_holds_digests_only_and_is_read_by_its_owner_alone(store: KeyStore) -> None:
    made = store.create("analyst", ["read", "what-if"], NOW, expires_at=LATER, rate="5/second", ab_share=0.1)

    assert store.read() == [made.kept]
    assert made.kept.digest == key_digest(made.secret)
    assert made.secret.split("_")[2].encode() not in store.path.read_bytes()
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert [path.name for path in store.path.parent.iterdir()] == ["keys.sqlite"]


def test_a_file_that_others_could_read_is_closed_to_them(store: KeyStore) -> None:
    store.create("a", ["read"], NOW)
    store.path.chmod(0o644)

    store.create("b", ["read"], NOW)

    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_without_the_file_there_are_no_keys_and_none_is_made(store: KeyStore) -> None:
    assert store.read() == []
    assert not store.path.exists()


def test_a_name_belongs_to_one_active_key(store: KeyStore) -> None:
    store.create("analyst", ["read"], NOW)

    with pytest.raises(TurnoverError, match="turnover keys rotate analyst"):
        store.create("analyst", ["read"], NOW)
    store.revoke("analyst", NOW)
    assert store.create("analyst", ["read"], NOW).kept.state(NOW) == "active"


def test_the_states_of_a_key(store: KeyStore) -> None:
    key = store.create("analyst", ["read"], NOW, expires_at=LATER).kept

    assert key.state(LATER - timedelta(seconds=1)) == "active"
    assert key.state(LATER) == "expired"
    (revoked,) = store.revoke(key.key_id, NOW)
    assert revoked.state(NOW) == "revoked"
    with pytest.raises(TurnoverError, match="is revoked already"):
        store.revoke("analyst", NOW)


def test_a_replaced_key_works_on_for_a_while_and_then_no_more(store: KeyStore) -> None:
    old = store.create("analyst", ["read", "adjust"], NOW, expires_at=LATER, rate="5/second", ab_share=0.5)

    new = store.rotate("analyst", NOW + timedelta(days=1), timedelta(hours=24))

    before, after = store.read()
    assert new.secret != old.secret
    assert (after.name, after.scopes, after.rate, after.ab_share) == (
        "analyst",
        {"read", "adjust"},
        "5/second",
        0.5,
    )
    assert after.expires_at == LATER + timedelta(days=1)
    assert before.replaced_by == after.key_id
    assert before.state(NOW + timedelta(days=2) - timedelta(seconds=1)) == "replaced"
    assert before.state(NOW + timedelta(days=2)) == "expired"
    with pytest.raises(TurnoverError, match="was replaced already"):
        store.rotate(before.key_id, NOW + timedelta(days=1), timedelta(0))


def test_replacing_never_makes_a_key_last_longer(store: KeyStore) -> None:
    store.create("analyst", ["read"], NOW, expires_at=NOW + timedelta(hours=1))

    store.rotate("analyst", NOW, timedelta(days=9))

    assert store.read()[0].expires_at == NOW + timedelta(hours=1)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "\x1b[31m"])
def test_a_name_is_one_that_can_be_read(store: KeyStore, name: str) -> None:
    with pytest.raises(TurnoverError, match="needs a name"):
        store.create(name, ["read"], NOW)


def test_processes_make_keys_at_the_same_time(store: KeyStore) -> None:
    threads = [
        threading.Thread(target=lambda n=n: KeyStore(store.path).create(f"{n}", ["read"], NOW))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(store.read()) == 8


def test_a_damaged_file_is_told_with_what_to_do(store: KeyStore) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(b"no database, but long enough to be taken for one" * 100)

    with pytest.raises(HomeError, match="put it back from a backup"):
        store.read()


# The keys that a server goes by ------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_keys_that_are_made_and_revoked_count_within_a_second(store: KeyStore) -> None:
    clock = Clock()
    keyring = Keyring(store, clock)
    assert not keyring.is_used()

    made = store.create("analyst", ["read"], NOW)
    clock.now += LOOK_SECONDS
    assert keyring.accept(made.secret).key_id == made.kept.key_id
    store.revoke("analyst", NOW)
    clock.now += LOOK_SECONDS

    with pytest.raises(WrongKeyError, match="is revoked"):
        keyring.accept(made.secret)
    assert keyring.is_used()
    assert keyring.in_force() == 0


def test_looking_again_costs_no_reading_where_nothing_changed(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    store.create("analyst", ["read"], NOW)
    os.utime(store.path, (0, 0))
    clock, reads = Clock(), []
    keyring = Keyring(store, clock)
    read = KeyStore.read
    monkeypatch.setattr(KeyStore, "read", lambda self: reads.append(1) or read(self))

    for _ in range(5):
        keyring.find("x")
        clock.now += LOOK_SECONDS

    assert len(reads) == 1


def test_a_right_id_with_another_secret_is_unknown(store: KeyStore) -> None:
    made = store.create("analyst", ["read"], NOW)

    with pytest.raises(WrongKeyError, match="There is no such API key"):
        Keyring(store).accept(compose_key(made.kept.key_id, "x" * SECRET_LENGTH))


def test_a_file_that_cannot_be_read_any_more_changes_nothing_and_is_told(store: KeyStore) -> None:
    made, clock = store.create("analyst", ["read"], NOW), Clock()
    keyring = Keyring(store, clock)
    keyring.accept(made.secret)

    store.path.write_bytes(b"damaged" * 1000)
    clock.now += LOOK_SECONDS

    assert keyring.accept(made.secret).name == "analyst"
    assert "cannot be read" in keyring.problem


# The commands ------------------------------------------------------------------------------------


def turnover(home: Path, *words: str, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["keys", *words], env={"TURNOVER_HOME": str(home)})
    assert result.exit_code == code, result.output
    return result.stdout.strip(), result.stderr


def test_the_key_alone_goes_to_standard_output_and_to_nowhere_else(tmp_path: Path) -> None:
    secret, said = turnover(
        tmp_path,
        *("create", "--name", "analyst", "--scope", "read", "--scope", "what-if", "--rate", "600/minute"),
        *("--expires", "2099-12-31", "--ab-share", "0.1"),
    )

    (kept,) = KeyStore(tmp_path / "keys.sqlite").read()
    assert key_id_of(secret) == kept.key_id
    assert secret not in said
    assert "shown this once" in said
    assert kept.expires_at == datetime(2100, 1, 1, tzinfo=UTC)
    listed = json.loads(turnover(tmp_path, "list", "--format", "json")[0])
    assert [(row["name"], row["state"], row["scopes"], row["rate"], row["ab_share"]) for row in listed] == [
        ("analyst", "active", ["read", "what-if"], "600/minute", 0.1)
    ]
    for file_format in ("table", "csv"):
        shown = turnover(tmp_path, "list", "--format", file_format)[0]
        assert kept.key_id in shown
        assert secret.split("_")[2] not in shown


def test_a_key_is_replaced_and_revoked_by_name(tmp_path: Path) -> None:
    first, _ = turnover(tmp_path, "create", "--name", "analyst")
    second, said = turnover(tmp_path, "rotate", "analyst", "--overlap-hours", "0")
    _, ended = turnover(tmp_path, "revoke", "analyst")

    assert first != second
    assert "no longer" in said
    assert str(key_id_of(second)) in ended
    assert {key.state(datetime.now(UTC)) for key in KeyStore(tmp_path / "keys.sqlite").read()} <= {
        "expired",
        "revoked",
    }


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["create", "--name", "a", "--scope", "write"], "no scope named 'write'"),
        (["create", "--name", "a", "--rate", "often"], "is no rate"),
        (["create", "--name", "a", "--expires", "2020-01-01"], "has passed"),
        (["revoke", "nobody"], "no key with the id or name 'nobody'"),
        (["rotate", "nobody"], "no key with the id or name 'nobody'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_and_nothing_is_made(
    tmp_path: Path, words: list[str], problem: str
) -> None:
    _, said = turnover(tmp_path, *words, code=1)

    assert problem in " ".join(said.split())
    assert KeyStore(tmp_path / "keys.sqlite").read() == []


def test_without_keys_the_list_says_how_to_make_one(tmp_path: Path) -> None:
    assert "turnover keys create" in turnover(tmp_path, "list")[1]
