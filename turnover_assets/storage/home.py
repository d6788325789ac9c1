"""The data home: making it, and the files that belong to Dagster in it.

What belongs here: the folders of a home, DAGSTER_HOME's configuration, and the lock of whole runs. What
does not: what is in the warehouse or the snapshots.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryFile

from filelock import FileLock, Timeout

from turnover_assets.errors import HomeError
from turnover_assets.settings import Settings
from turnover_assets.storage.home_layout import LAYOUT, bring_layout_up, check_layout


def shipped_file(name: str) -> Path:
    """A file that stands at the top of the repository and is installed inside the package.

    Args:
        name: `dagster.yaml` or `workspace.yaml`.
    """
    package = Path(str(files("turnover_assets")))
    installed = package / name
    return installed if installed.is_file() else package.parent / name


def prepare_home(settings: Settings) -> None:
    """Make the home's folders, see that they can be written, and give Dagster its configuration.

    A home of an older release is brought to the layout of this one, once nobody runs in it.

    Raises:
        HomeError: Something in the home cannot be made or written.
        NewerHomeError: A newer release has changed the home; nothing was touched.
    """
    home = settings.home.absolute()
    if "?" in str(home) or "#" in str(home):
        raise HomeError(home, "its path holds a ? or #, which databases read as options", "Name another one.")
    found = check_layout(home)
    try:
        for folder in (home, settings.published_path, settings.mlflow_path, settings.dagster_path):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder) as probe:
                probe.write(b"\0")
        if settings.landing_path.is_relative_to(home):  # another one must be there: it may be a mount
            settings.landing_path.mkdir(parents=True, exist_ok=True)
        config = settings.dagster_config or shipped_file("dagster.yaml")
        _copy_if_different(config, settings.dagster_path / "dagster.yaml")
        if found is None or found.layout == LAYOUT:
            bring_layout_up(settings, found)
        else:
            with run_lock(settings, lambda: None):
                bring_layout_up(settings, check_layout(home))  # another process may have been quicker
    except OSError as error:
        raise HomeError(
            home,
            f"{error.strerror or error}",
            "Nothing was changed. Make it writable, free some space, or set TURNOVER_HOME to another folder.",
        ) from error


def _copy_if_different(source: Path, target: Path) -> None:
    content = source.read_bytes()
    if target.is_file() and target.read_bytes() == content:
        return
    fresh = target.with_suffix(f".{os.getpid()}.tmp")
    fresh.write_bytes(content)
    fresh.replace(target)


@contextmanager
def run_lock(settings: Settings, waiting: Callable[[], None]) -> Iterator[None]:
    """Keep whole runs apart: a second one waits for the first and then finds its work done.

    Args:
        settings: The settings.
        waiting: Called once where another run has the lock.

    Raises:
        HomeError: The other run did not end within the time limit.
    """
    lock = FileLock(settings.home.absolute() / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        try:
            lock.acquire(timeout=settings.lock_timeout_seconds)
        except Timeout:
            raise HomeError(
                settings.home,
                f"another run has been using it for more than {settings.lock_timeout_seconds:.0f} s",
                "See it with `turnover ui`, or raise TURNOVER_LOCK_TIMEOUT_SECONDS.",
            ) from None
    try:
        yield
    finally:
        lock.release()
