"""Following the current snapshot, and asking it: a broken one never replaces a whole one."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from turnover_assets.errors import NoSnapshotError, TurnoverError
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets.serving import follower as follower_module
from turnover_assets.serving.follower import Follower
from turnover_assets.serving.view import View
from turnover_assets.storage import snapshots
from turnover_assets.storage.snapshots import CURRENT, Snapshot
from turnover_assets_tests.waiting import PATIENCE

PANEL = default_panel()
Publish = Callable[[int], Snapshot]


@pytest.fixture
def publish(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> Publish:
    """Publishes a snapshot whose table `numbers` holds so many."""

    def make(count: int) -> Snapshot:
        queries = {"numbers": f"SELECT * FROM range({count}) AS r(n)"}
        return snapshots.publish(con, tmp_path, queries, {"panel": PANEL.name, "cutoff": "2024-01-06"})

    return make


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower[View]]:
    made = Follower(tmp_path, lambda snapshot: View(snapshot, PANEL), interval_seconds=0.01)
    yield made
    made.close()


def count(view: View) -> int:
    found: int = view.records("SELECT count(*) AS n FROM numbers")[0]["n"]
    return found


def test_nothing_published_is_said_and_found_once_it_is(follower: Follower[View], publish: Publish) -> None:
    assert "Nothing has been published" in follower.refresh().problem
    with pytest.raises(NoSnapshotError, match="turnover run"), follower.use():
        pass

    snapshot = publish(3)

    assert follower.refresh().snapshot == snapshot
    assert follower.following.problem == ""
    with follower.use() as view:
        assert count(view) == 3


def test_a_question_under_way_is_answered_by_the_snapshot_it_began_with(
    follower: Follower[View], publish: Publish, tmp_path: Path
) -> None:
    first = publish(3)
    follower.refresh()

    with follower.use() as view:
        publish(4)
        follower.refresh()
        with follower.use() as newer:
            assert (count(view), count(newer)) == (3, 4)
        assert snapshots.prune(tmp_path, keep=1) == []  # leased by the question
        assert count(view) == 3

    assert snapshots.prune(tmp_path, keep=1) == [first.name]


def test_a_pointer_to_what_is_not_there_is_told_and_the_old_one_goes_on(
    follower: Follower[View], publish: Publish, tmp_path: Path
) -> None:
    snapshot = publish(3)
    follower.refresh()
    (tmp_path / CURRENT).write_text("2031-01-01_gone\n")

    following = follower.refresh()

    assert following.snapshot == snapshot
    assert "2031-01-01_gone" in following.problem
    assert following.problem_since == following.checked_at
    assert follower.refresh().problem_since == following.problem_since
    (tmp_path / CURRENT).write_text(f"{snapshot.name}\n")
    assert follower.refresh().problem_since is None
    with follower.use() as view:
        assert count(view) == 3


def test_a_file_that_is_broken_is_told_and_the_old_one_goes_on(
    follower: Follower[View], publish: Publish
) -> None:
    publish(3)
    follower.refresh()
    broken = publish(4)
    size = broken.path("numbers").stat().st_size
    broken.path("numbers").write_bytes(b"\0" * size)

    following = follower.refresh()

    assert broken.name in following.problem
    with follower.use() as view:
        assert count(view) == 3


def test_what_cannot_be_used_is_tried_again_at_growing_intervals_and_at_once_where_asked(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []
    clock = [0.0]
    monkeypatch.setattr(follower_module.time, "monotonic", lambda: clock[0])

    def make(snapshot: Snapshot) -> View:
        tries.append(clock[0])
        raise TurnoverError("not whole")

    following = Follower(tmp_path, make, interval_seconds=2.0)
    publish(1)
    for second in range(0, 200, 2):
        clock[0] = second
        assert following.refresh(patient=True).problem == "not whole"

    assert tries == [0, 2, 6, 14, 30, 62, 122, 182]
    following.refresh()
    assert len(tries) == 9
    publish(2)
    following.refresh(patient=True)  # another snapshot has nothing to wait for
    assert len(tries) == 10
    following.close()


def test_whatever_goes_wrong_it_goes_on_following(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make(snapshot: Snapshot) -> View:
        made.append(snapshot.name)
        if len(made) == 2:
            raise MemoryError("no room")
        return View(snapshot, PANEL)

    following = Follower(tmp_path, make)
    first = publish(1)
    following.refresh()
    second = publish(2)

    assert following.refresh().snapshot == first
    assert following.following.problem == "MemoryError: no room"
    assert following.refresh().snapshot == second
    assert following.following.problem == ""
    following.close()


def test_it_follows_by_itself_and_many_ask_meanwhile(follower: Follower[View], publish: Publish) -> None:
    publish(0)
    follower.start()
    seen: list[int] = []
    problems: list[NoSnapshotError] = []

    def ask() -> None:
        try:
            while not seen or seen[-1] < 5:
                with follower.use() as view:
                    seen.append(count(view))
        except NoSnapshotError as error:
            problems.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 6):
        publish(number)
    for thread in threads:
        thread.join(timeout=PATIENCE)

    assert not problems
    assert seen[-1] == 5


def test_a_snapshot_of_another_panel_is_refused(publish: Publish) -> None:
    other: PanelSpec = PANEL.model_copy(update={"name": "another"})

    with pytest.raises(NoSnapshotError, match=f"of the panel '{PANEL.name}', not of 'another'"):
        View(publish(1), other)


def test_tables_held_in_memory_answer_as_the_files_do(publish: Publish) -> None:
    view = View(publish(5), PANEL)
    before = view.arrow("SELECT * FROM numbers WHERE n > $least", {"least": 2})

    view.keep("numbers", "not there")

    assert view.arrow("SELECT * FROM numbers WHERE n > ?", [2]).equals(before)
    assert not view.has("not there")
    view.close()
