"""How fast the API answers look-ups, beside MLflow's own server of the same model and the same question.

What belongs here: both servers as processes of their own on loopback, the load on them, and what becomes of
requests while a run publishes and champions change. What does not: how good the answers are.

The question is "the forecasts of this series", another series each time: `GET /v1/forecasts?store=…` of the
API, and `POST /invocations` with the series keys of `mlflow models serve` of the champion (serving_model.py),
with one process each. Both answer all the horizon with bounds; that they say the same is checked first. Load
comes from `wrk` where it is installed, else from the loader in benchmarks/loader.py.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from loader import Load, Request, load

REPOSITORY = Path(__file__).resolve().parent.parent
TURNOVER = [sys.executable, "-m", "turnover_assets.cli"]
TARGET_RATIO, TARGET_P99 = 10.0, 0.025
LONGEST_START, LONGEST_RUN = 180.0, 1800.0
SIZE = ["--stores", "40", "--departments", "4", "--weeks", "130"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="a home with a champion; it is copied; default: a new one")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which medians are shown")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of each measurement")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument(
        "--while-running",
        action="store_true",
        help="count failures during a run and three promotions",
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        home = prepared_home(Path(folder), chosen.home, chosen.while_running)
        if chosen.while_running:
            return while_running(home, Path(folder) / "late", chosen.connections)
        return side_by_side(home, Path(folder), chosen.rounds, chosen.seconds, chosen.connections)


# Measuring side by side ----------------------------------------------------------------------------------


def side_by_side(home: Path, folder: Path, rounds: int, seconds: float, connections: int) -> int:
    keys, series = series_of(home)
    model = mlflow_model(home, folder)
    rng, found = random.Random(1), []
    with api_server(home) as api, mlflow_server(home, model) as mlflow:
        chosen = rng.choices(series, k=min(1000, 4 * len(series)))
        questions = {
            "api": [api_question(api, keys, each) for each in chosen],
            "mlflow": [mlflow_question(mlflow, keys, each) for each in chosen],
        }
        check_same(questions["api"][0], questions["mlflow"][0])
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}", file=sys.stderr)
            found.append({name: measured(asked, seconds, connections) for name, asked in questions.items()})
    return report(found)


def measured(questions: Sequence[Request], seconds: float, connections: int) -> tuple[Load, Load]:
    """Load at the maximum, and at half of it."""
    load(questions, 1.0, connections)  # warm
    most = load(questions, seconds, connections)
    return most, load(questions, seconds, connections, rate=most.rate / 2)


def report(rounds: Sequence[dict[str, tuple[Load, Load]]]) -> int:
    print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f} at the end; {Load.how()}\n")
    print("| round | server | look-ups/s | p50 ms | p99 ms | at half: /s | p50 ms | p99 ms | failed |")
    print("|---|---|---|---|---|---|---|---|---|")
    for number, servers in enumerate(rounds, 1):
        for name, (most, half) in servers.items():
            figures = f"{most.rate:,.0f} | {1e3 * most.p50:.1f} | {1e3 * most.p99:.1f} | {half.rate:,.0f} | "
            failed = most.failed + half.failed
            print(f"| {number} | {name} | {figures}{1e3 * half.p50:.1f} | {1e3 * half.p99:.1f} | {failed} |")
    ratios = [servers["api"][0].rate / servers["mlflow"][0].rate for servers in rounds]
    ratio = statistics.median(ratios)
    p99 = statistics.median(servers["api"][1].p99 for servers in rounds)
    failed = sum(each.failed for servers in rounds for each in servers["api"])
    print(f"\nmedian ratio {ratio:.1f} (at least {TARGET_RATIO:g} wanted), ", end="")
    print(f"p99 at half {1e3 * p99:.1f} ms (below {1e3 * TARGET_P99:g} wanted), {failed} failed of ours")
    return 0 if ratio >= TARGET_RATIO and p99 < TARGET_P99 and not failed else 1


def check_same(api: Request, mlflow: Request) -> None:
    """Both must give the same forecasts, or they are not compared."""
    ours, theirs = json.loads(answer_to(api))["data"], json.loads(answer_to(mlflow))["predictions"]
    for one, other in zip(ours, theirs, strict=True):
        for name in ("forecast", "lower_80", "upper_95"):
            if abs(one[name] - other[name]) > 1e-3 * max(1.0, abs(one[name])):
                raise SystemExit(f"The servers disagree: {name} is {one[name]} and {other[name]}.")


def api_question(base: str, keys: Sequence[str], series: Sequence[Any]) -> Request:
    query = "&".join(f"{key}={value}" for key, value in zip(keys, series, strict=True))
    return Request(f"{base}/v1/forecasts?{query}")


def mlflow_question(base: str, keys: Sequence[str], series: Sequence[Any]) -> Request:
    body = json.dumps({"dataframe_split": {"columns": list(keys), "data": [list(series)]}})
    return Request(f"{base}/invocations", body)


# Failures while things change ----------------------------------------------------------------------------


def while_running(home: Path, late: Path, connections: int) -> int:
    """Ask without a pause while a run publishes new data and champions change; nothing may fail."""
    turnover(home, "run", "--landing", str(home / "landing"), "--retrain")  # a second version to promote
    keys, series = series_of(home)
    with api_server(home) as api:
        questions = [api_question(api, keys, each) for each in series]
        first = served(api)
        for file in late.iterdir():
            shutil.copy(file, home / "landing")
        asked = meanwhile(questions, connections, lambda: changes(home, api))
        last = served(api)
    failed = sum(each.failed for each in asked)
    slowest = max(each.p99 for each in asked)
    print(f"first {first}\nlast  {last}")
    requests = sum(each.requests for each in asked)
    print(f"{requests:,} requests, {failed} failed, p99 up to {1e3 * slowest:.0f} ms")
    return 0 if not failed and first != last else 1


def changes(home: Path, api: str) -> None:
    """A full run on a new weekly file, then three promotions, each published and seen by the server."""
    turnover(home, "run", "--landing", str(home / "landing"))
    print(f"after the run: {served(api)}")
    champion = int(served(api)["model_version"])
    other = 1 if champion != 1 else 2
    for version in (other, champion, other):
        turnover(home, "models", "promote", str(version), "--reason", "benchmark")
        turnover(home, "run", "--landing", str(home / "landing"))
        until = time.monotonic() + LONGEST_START
        while int(served(api)["model_version"]) != version:
            if time.monotonic() > until:
                raise SystemExit(f"Version {version} was never served.")
            time.sleep(0.5)
        print(f"after promoting {version}: {served(api)}")


def meanwhile(questions: Sequence[Request], connections: int, work: Callable[[], None]) -> list[Load]:
    """Loads one after the other until a piece of work is done."""
    problems: list[BaseException] = []

    def working() -> None:
        try:
            work()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told by the thread that waits
            problems.append(error)

    thread = threading.Thread(target=working)
    thread.start()
    found, until = [], time.monotonic() + LONGEST_RUN
    while thread.is_alive() and time.monotonic() < until:
        found.append(load(questions, 5.0, connections, rate=200.0))
    thread.join(timeout=1.0)
    if problems:
        raise SystemExit(f"The changes did not work: {problems[0]}")
    if thread.is_alive():
        raise SystemExit("The changes took too long.")
    return found


def served(base: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer_to(Request(f"{base}/v1/snapshot")))["served"]
    return found


# Homes and servers ---------------------------------------------------------------------------------------


def prepared_home(folder: Path, given: Path | None, keep_late: bool) -> Path:
    """A copy of a home, or a new one of a synthetic retailer; its last weekly file may come later."""
    home, late = folder / "home", folder / "late"
    late.mkdir()
    if given is not None:
        shutil.copytree(given, home)
        return home
    turnover(home, "sample", "--output", str(home / "landing"), *SIZE)
    if keep_late:
        last = max((home / "landing").glob("turnover_2*.csv"))
        shutil.move(last, late / last.name)
    turnover(home, "run", "--landing", str(home / "landing"))
    return home


def turnover(home: Path, *words: str) -> None:
    done = subprocess.run(
        ["nice", *TURNOVER, *words],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=LONGEST_RUN,
    )
    if done.returncode:
        raise SystemExit(f"turnover {' '.join(words)} failed:\n{done.stderr}")


def environment(home: Path) -> dict[str, str]:
    modules = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    own = {"TURNOVER_HOME": str(home), "PYTHONPATH": modules, "PATH": programs, "OMP_WAIT_POLICY": "passive"}
    return {**os.environ, **own}


def series_of(home: Path) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Names of the series keys, and those of every series that is forecast."""
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.snapshots import current

    settings = load_settings(home=home)
    keys = settings.panel_spec.keys
    table = current(settings.published_path).read("forecasts")[list(keys)].drop_duplicates()
    return keys, [tuple(row) for row in table.astype(object).to_numpy().tolist()]


def mlflow_model(home: Path, folder: Path) -> Path:
    """The champion as a pyfunc model on disk."""
    import mlflow

    from turnover_assets.settings import load_settings
    from turnover_assets.storage.registry import ModelRegistry

    settings = load_settings(home=home)
    registry = ModelRegistry(settings.mlflow_path, settings.panel_spec.name)
    files, warehouse, path = folder / "champion", folder / "warehouse.duckdb", folder / "pyfunc"
    files.mkdir()
    registry.load(registry.champion_version()).save(files)
    shutil.copy(settings.warehouse_path, warehouse)
    mlflow.pyfunc.save_model(
        str(path),
        python_model=str(Path(__file__).with_name("serving_model.py")),
        artifacts={"model": str(files), "warehouse": str(warehouse)},
        pip_requirements=[],
    )
    return path


@contextmanager
def api_server(home: Path) -> Iterator[str]:
    port = free_port()
    command = [*TURNOVER, "serve", "--port", str(port)]
    with process(command, home, f"http://127.0.0.1:{port}", "/readyz") as base:
        yield base


@contextmanager
def mlflow_server(home: Path, model: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model)]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with process(command, home, f"http://127.0.0.1:{port}", "/ping") as base:
        yield base


@contextmanager
def process(command: list[str], home: Path, base: str, health: str) -> Iterator[str]:
    """A server as a process of its own, from when it answers until the block ends."""
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(
            command, env=environment(home), stdout=log, stderr=log, start_new_session=True
        )
        try:
            until = time.monotonic() + LONGEST_START
            while not answers(base + health):
                if started.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise SystemExit(f"{' '.join(command)} did not start:\n{log.read().decode()[-2000:]}")
                time.sleep(0.3)
            yield base
        finally:
            if started.poll() is None:
                os.killpg(started.pid, signal.SIGTERM)
            started.wait(timeout=60)


def answers(address: str) -> bool:
    try:
        answer_to(Request(address))
    except OSError:
        return False
    return True


def answer_to(request: Request) -> bytes:
    body = None if request.body is None else request.body.encode()
    asked = urllib.request.Request(request.address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        found: bytes = answer.read()
        return found


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
