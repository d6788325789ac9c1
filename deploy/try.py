#!/usr/bin/env python3
"""deploy/try.py: the container stack on the engine of this machine, from an empty start to a recovered one.

Builds the images, starts a stack of its own beside any other (own name, volumes, folders, port), drops files
of a synthetic retailer into its landing folder, and looks whether what docs/deployment.md promises is so:
no start without a password or a secret, forecasts and a model with nobody pressing a button, logs that are
JSON objects, killed runs and a restarted database that leave no trace, pages that are closed without a
password, an API that is closed without a key, and nothing that listens beyond loopback. It prints each
figure, removes what it made, and ends with 1 if anything was not as it should be.

The base images are those of the Dockerfiles and the compose file, or STACK_PYTHON_IMAGE, STACK_DEBIAN_IMAGE,
STACK_POSTGRES_IMAGE and STACK_PROMETHEUS_IMAGE. Needs Python, git, openssl and Docker with Compose.
"""

import argparse
import base64
import csv
import io
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from trials import PATIENCE, call, compose_program, documented, part_of, require, tell, tried, wait_for

TOP = Path(__file__).resolve().parent.parent
PARTS = {
    "proxy",
    "postgres",
    "code",
    "webserver",
    "viewer",
    "daemon",
    "engine-gate",
    "sweeper",
    "mlflow",
    "metrics",
    "prometheus",
    "api",
    "dashboard",
}
# What docker-compose.yaml asks for, and the files in the folder of secrets.
REQUIRED = set(re.findall(r"\$\{(\w+):\?", (TOP / "docker-compose.yaml").read_text("utf-8")))
SECRETS = ("operators", "viewers", "tls_certificate", "tls_key")
# A small retailer whose training is quick, sensors that look often, and ended containers that go soon.
QUICK = {
    "TURNOVER_TRAINING_SHARE": "0.005",
    "TURNOVER_BACKTEST_WINDOWS": "1",
    "TURNOVER_RETRAIN_CHANGED_SHARE": "0.5",
    "TURNOVER_SENSOR_INTERVAL_SECONDS": "5",
    "STACK_KEEP_CONTAINERS_SECONDS": "20",
    "TURNOVER_LOG_FORMAT": "json",
    "STACK_DAGSTER_LOG_FORMAT": "json",
    "STACK_RUN_MEMORY": "3g",
}
PAGES = (
    "/",
    "/stack",
    "/docs",
    "/openapi.json",
    "/dagster/",
    "/dagster/graphql",
    "/view/",
    "/mlflow/",
    "/prometheus/",
    "/grafana/",
    "/nowhere",
)
NAME = "turnover-try-"  # of the stack, before the process id
UNENDED = {"QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"}
RUNS = """query { runsOrError(limit: 500) { ... on Runs { results {
  runId status jobName creationTime startTime endTime tags { key value } } } } }"""
LAUNCH = """mutation { launchRun(executionParams: {selector: {
  repositoryLocationName: "turnover_assets", repositoryName: "__repository__", jobName: "housekeep"} }) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
REACH = """
import socket, sys
for part in sys.argv[1:]:
    host, _, port = part.partition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
        print("yes")
    except OSError:
        print("no")
"""
MODELS = "/mlflow/ajax-api/2.0/mlflow/model-versions/search"
STEPS = """query { runOrError(runId: "RUN_ID") { ... on Run { stepStats { status } } } }"""

Run = Mapping[str, Any]


class Stack:
    """One stack with its own name, folders, secrets and port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.name = folder, port, f"{NAME}{os.getpid()}"
        self.landing = folder / "landing"
        self.env_file = folder / "env"
        self.env_file.write_text(
            "".join(f"{key}={value}\n" for key, value in {"COMPOSE_PROJECT_NAME": self.name, **QUICK}.items())
            + f"STACK_PORT={port}\n"
        )
        told = call(str(TOP / "deploy" / "init"), "--folder", str(folder), "--env-file", str(self.env_file))
        self.passwords = dict(line.split() for line in told.splitlines())
        self.tls = ssl.create_default_context(cafile=folder / "secrets" / "tls_certificate")
        self.key = ""  # of the API, once it is made

    @cached_property
    def composer(self) -> list[str]:
        """How Compose is called for this stack."""
        return [*compose_program(), "--env-file", str(self.env_file)]

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run Compose."""
        return call(*self.composer, *arguments, check=check, cwd=TOP)

    def settings(self) -> dict[str, str]:
        """What its `.env` says."""
        return dict(line.split("=", 1) for line in self.env_file.read_text().splitlines())

    def complaint(self, settings: Mapping[str, str], *arguments: str) -> str:
        """What Compose says when it ends with an error, by other settings; nothing where it does not."""
        other = self.folder / "other-env"
        other.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        outside = {name: value for name, value in os.environ.items() if name not in self.settings()}
        command = [*compose_program(), "--env-file", str(other), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOP, env=outside)
        return f"{done.stdout}{done.stderr}" if done.returncode else ""

    def carry_out(self, script: str) -> None:
        """Do what a block of docs/deployment.md says, in a folder that has `stack/` as a checkout does."""
        beside = self.folder / "checkout"
        beside.mkdir(exist_ok=True)
        if not (beside / "stack").exists():
            (beside / "stack").symlink_to(self.folder)
        here = ["--file", str(TOP / "docker-compose.yaml"), "--project-directory", str(TOP)]
        compose = shlex.join([*self.composer, *here])
        docker = f'docker() {{ test "$1" = compose || exit 9; shift; command {compose} "$@"; }}'
        call("bash", "-euo", "pipefail", "-c", f"{docker}\n{script}", cwd=beside)

    def containers(self) -> list[dict[str, Any]]:
        """What the engine tells of the stack's own containers that run."""
        mine = f"label=com.docker.compose.project={self.name}"
        listed = call("docker", "ps", "--quiet", "--filter", mine).split()
        return json.loads(call("docker", "inspect", *listed)) if listed else []

    def part(self, name: str) -> dict[str, Any]:
        """The same of one part."""
        return next(facts for facts in self.containers() if part_of(facts) == name)

    def run_containers(self) -> dict[str, str]:
        """State of the containers of runs, by run id; ended ones too."""
        told = call("docker", "ps", "--all", "--filter", f"label=turnover.stack={self.name}", "--format",
                    '{{.Label "dagster/run_id"}} {{.State}} {{.ID}}')  # fmt: skip
        return {run: f"{state} {container}" for run, state, container in map(str.split, told.splitlines())}

    def ask(
        self, path: str, who: str | None = "operator", content: Any = None, **headers: str
    ) -> tuple[int, bytes]:
        """Ask the proxy for a page: its status and content."""
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", headers=headers)
        if who:
            both = f"{who}:{self.passwords[who]}".encode()
            request.add_header("Authorization", f"Basic {base64.b64encode(both).decode()}")
        if content is not None:
            request.data = json.dumps(content).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.tls) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def graphql(self, query: str, page: str = "/dagster", who: str = "operator") -> dict[str, Any]:
        """Ask Dagster."""
        status, content = self.ask(f"{page}/graphql", who, {"query": query})
        if status != 200:
            raise OSError(f"{page}/graphql answers {status}: {content[:200]!r}")
        return json.loads(content)["data"]

    def runs(self) -> list[Run]:
        """Every run, newest first; tags as a mapping."""
        found = self.graphql(RUNS)["runsOrError"]["results"]
        return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]

    def rows(self, name: str) -> list[dict[str, str]]:
        """What the API gives of a published table, all of it."""
        status, content = self.ask(f"/v1/{name}?format=csv", who=None, **{"X-API-Key": self.key})
        if status != 200:
            raise OSError(f"the API answers {status}: {content[:200]!r}")
        return list(csv.DictReader(io.StringIO(content.decode())))

    def turnover(self, *arguments: str) -> str:
        """The `turnover` command inside the code location."""
        return self.compose("exec", "-T", "code", "turnover", *arguments)

    def cutoff(self) -> str:
        """The newest period that published forecasts know; raises where there are none yet.

        The pointer to what is published begins with it. To read that takes no time from the runs, which
        starting a `turnover export` each time would.
        """
        named = call("docker", "exec", self.part("code")["Id"], "cat", "/data/home/published/CURRENT")
        return named.partition("_")[0]

    def drop(self, *files: Path) -> None:
        """Put files into the landing folder, as someone who copies them there."""
        for file in files:
            shutil.copyfile(file, self.landing / file.name)
            (self.landing / file.name).chmod(0o644)


def build(stack: Stack, *, fresh: bool) -> None:
    """Build the images; their sizes, and how long it took."""
    began = time.monotonic()
    stack.compose("build", *(["--no-cache"] if fresh else []))
    tell(f"images built in {time.monotonic() - began:.0f} s")
    config = stack.compose("config")
    names = {line.split("image:")[1].strip() for line in config.splitlines() if "image:" in line}
    for name in sorted(name for name in names if name.startswith("turnover-")):
        facts = json.loads(call("docker", "image", "inspect", name))[0]
        labels = facts["Config"].get("Labels") or {}
        tell(
            f"image {name}: {facts['Size'] / 1e6:.0f} MB, "
            f"revision {labels.get('org.opencontainers.image.revision')}"
        )


def missing_secrets_stop_the_start(stack: Stack) -> None:
    """What must be set and is not, and a secret that is missing or empty: a word on it, and nothing runs."""
    given, unnamed = stack.settings(), []
    for name in sorted(REQUIRED):
        without = {other: value for other, value in given.items() if other != name}
        for settings in (without, {**given, name: ""}):
            said = stack.complaint(settings, "up", "--detach", "--no-build")
            if not re.search(rf"{name}(:\?| is missing a value: )is not set; run deploy/init", said):
                unnamed.append(f"{name}: {said[-300:]!r}")
    require(not unnamed, f"no start without what must be set, which is named: {unnamed or sorted(REQUIRED)}")
    for secret in SECRETS:
        for how, settings, words in bad_secrets(stack, secret):
            said = stack.complaint(settings, "run", "--rm", "--no-deps", "-T", "proxy")
            if not all(word in said for word in words):
                unnamed.append(f"{secret} {how}: {said[-300:]!r}")
    require(not unnamed, f"nor without a secret, or with an empty one: {unnamed or ', '.join(SECRETS)}")
    require(not stack.containers(), "none of these starts left anything running")


def bad_secrets(stack: Stack, secret: str) -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """Settings with copies of the secrets, one missing or empty, and words that the complaint must have."""
    given = stack.settings()
    for how in ("missing", "empty"):
        folder = stack.folder / f"{how}-{secret}"
        shutil.copytree(given["STACK_SECRETS"], folder)
        (folder / secret).unlink()
        if how == "empty":
            (folder / secret).touch()
        words = ["deploy/init", f"The secret {secret} is"] if how == "empty" else [str(folder / secret)]
        yield how, {**given, "STACK_SECRETS": str(folder)}, words


def inside_the_image(stack: Stack) -> None:
    """No compiler, pip or tests; not root; nothing that can be written but /tmp and the home."""
    look = r"""
set -eu
id -u
for tool in gcc cc g++ make; do if command -v $tool; then exit 1; fi; done
if ls /opt/venv/bin/pip* 2>/dev/null; then exit 1; fi
if find / -xdev -name turnover_assets_tests -not -path '/proc/*' 2>/dev/null | grep .; then exit 1; fi
if find /root /home /opt -xdev \( -name '*.whl' -o -name '.cache' \) 2>/dev/null | grep .; then exit 1; fi
for place in /opt /landing /usr/local; do if touch $place/x 2>/dev/null; then echo $place; exit 1; fi; done
touch /data/home/.probe /tmp/x
rm /data/home/.probe
"""
    user = stack.compose("exec", "-T", "code", "sh", "-c", look).split()
    require(
        user == ["10001"],
        "the image has no compiler, pip, cache or tests; user 10001 writes to its home and /tmp only",
    )
    heavy = ("pandas", "mlflow", "xgboost", "duckdb")
    lean = f"from importlib.util import find_spec; print([name for name in {heavy} if find_spec(name)])"
    found = stack.compose("exec", "-T", "daemon", "python", "-c", lean).strip()
    require(found == "[]", "webserver and daemon have Dagster and nothing that models need")


def start(stack: Stack, sign: str = "healthy") -> None:
    """Start the stack and wait until every part says that it is healthy."""
    began = time.monotonic()
    stack.compose("up", "--detach")

    def all_healthy() -> bool | None:
        health = {
            part_of(facts): facts["State"].get("Health", {}).get("Status") for facts in stack.containers()
        }
        return True if {part for part, state in health.items() if state == "healthy"} >= PARTS else None

    wait_for("every part is healthy", all_healthy, 240)
    tell(f"{len(PARTS)} parts {sign} in {time.monotonic() - began:.0f} s")


def closed_without_a_password(stack: Stack) -> None:
    """Pages without credentials, with wrong ones, for viewers and for operators, and from elsewhere."""
    without = {page: stack.ask(page, who=None)[0] for page in PAGES}
    require(
        set(without.values()) == {401}, f"without a password every page answers 401 ({len(without)} asked)"
    )
    right, stack.passwords["operator"] = stack.passwords["operator"], "wrong"
    wrong = stack.ask("/dagster/")[0]
    stack.passwords["operator"] = right
    require(wrong == 401, "a wrong password is 401")
    pages = ("/", "/stack", "/dagster/server_info", "/view/server_info", "/mlflow/", "/prometheus/-/healthy")
    answers = {page: stack.ask(page)[0] for page in pages}
    wanted = {**dict.fromkeys(pages, 200), "/": 503}  # where nothing is published yet
    require(answers == wanted, f"with a password the pages work: {', '.join(pages)}")
    asked = ("/", "/view/server_info", "/dagster/", "/mlflow/")
    viewer = [stack.ask(page, "viewer")[0] for page in asked]
    require(viewer == [503, 200, 401, 401], "viewers see forecasts and the read-only Dagster alone")
    elsewhere = stack.ask("/dagster/graphql", content={"query": RUNS}, Origin="https://elsewhere.example")[0]
    require(elsewhere == 403, "what another site's page asks for is refused")


def viewers_change_nothing(stack: Stack) -> None:
    """The read-only page refuses what changes anything."""
    query = 'mutation { terminateRun(runId: "00000000-0000-0000-0000-000000000000") { __typename } }'
    found = stack.graphql(query, "/view", "viewer")["terminateRun"]["__typename"]
    require(found == "UnauthorizedError", f"the viewers' page refuses to stop a run ({found})")


def nothing_listens_elsewhere(stack: Stack, before: set[str]) -> None:
    """All sockets that listen on this machine, and all ports that containers publish."""
    new = listening_sockets() - before
    require(
        new and all(socket.startswith("127.0.0.1:") for socket in new),
        f"of all listening sockets of this machine, new is only {', '.join(sorted(new))}",
    )
    published = [
        f"{binding['HostIp']}:{binding['HostPort']}"
        for facts in stack.containers()
        for bindings in facts["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    ]
    require(
        published == [f"127.0.0.1:{stack.port}"], f"of all parts, only the proxy is published: {published}"
    )
    privileged = [
        facts["Name"]
        for facts in stack.containers()
        if facts["HostConfig"]["Privileged"]
        or not facts["HostConfig"]["ReadonlyRootfs"]
        or facts["HostConfig"]["CapDrop"] != ["ALL"]
    ]
    require(
        not privileged, "no part is privileged, has a writable root or capabilities beyond those it names"
    )
    with_socket = [
        part_of(facts)
        for facts in stack.containers()
        for mount in facts["Mounts"]
        if mount["Destination"].endswith("docker.sock")
    ]
    require(with_socket == ["engine-gate"], "the engine's socket is in reach of engine-gate alone")


def listening_sockets() -> set[str]:
    """Addresses and ports that listen on this machine, all of IPv4 and IPv6."""
    found = set()
    for table, size in (("/proc/net/tcp", 8), ("/proc/net/tcp6", 32)):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A":
                address, _, port = local.partition(":")
                shown = (
                    ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
                    if size == 8
                    else f"[{address}]"
                )
                found.add(f"{shown}:{int(port, 16)}")
    return found


def the_gate_holds(stack: Stack) -> None:
    """What the daemon must not ask of the engine."""
    ask = """
import docker, docker.errors, sys
client = docker.from_env()
image = sys.argv[1]
tries = {
    "list every container": lambda: client.containers.list(),
    "mount the machine's disk": lambda: client.containers.create(image, volumes=["/:/host"]),
    "be privileged": lambda: client.containers.create(image, privileged=True),
    "use another image": lambda: client.containers.create("postgres"),
    "execute in a container": lambda: client.api.exec_create(sys.argv[2], "id"),
    "stop another container": lambda: client.api.stop(sys.argv[2]),
    "pull an image": lambda: client.images.pull("postgres", tag="latest"),
}
for name, attempt in tries.items():
    try:
        attempt()
    except docker.errors.APIError as error:
        assert error.status_code == 403, (name, error)
    else:
        sys.exit(f"possible: {name}")
print(len(tries))
"""
    image = stack.part("code")
    refused = stack.compose(
        "exec", "-T", "daemon", "python", "-c", ask, image["Config"]["Image"], image["Id"]
    )
    require(
        refused.strip() == "7",
        "the daemon can neither see nor start, stop or enter anything but this stack's runs",
    )


def sample(stack: Stack) -> tuple[list[Path], list[Path]]:
    """Files of a small synthetic retailer: history, and weeks that come later, one by one."""
    image = stack.part("code")
    archive = stack.folder / "sample.tar"
    write = "turnover sample --output /tmp/s --stores 8 --departments 2 --weeks 125 && tar -C /tmp/s -c ."
    with archive.open("wb") as out:
        subprocess.run(["docker", "exec", image["Id"], "sh", "-c", write], stdout=out, check=True)
    folder = stack.folder / "sample"
    folder.mkdir()
    call("tar", "-C", str(folder), "-xf", str(archive))
    weeks = sorted(folder.glob("turnover_20*.csv"))
    return [folder / "stores.csv", folder / "turnover_history.csv.gz"], weeks


def first_forecast(stack: Stack, history: Sequence[Path]) -> None:
    """Files dropped lead to runs in containers of their own, a model in MLflow, and forecasts."""
    began = time.monotonic()
    stack.drop(*history)
    cutoff = wait_for("forecasts are published", stack.cutoff, 300, 3)
    tell(
        f"from files dropped to a trained model and its forecasts: {time.monotonic() - began:.0f} s "
        f"(cutoff {cutoff})"
    )
    runs_write_objects(stack)
    quiet(stack)
    runs = stack.runs()
    require({run["status"] for run in runs} == {"SUCCESS"}, f"{len(runs)} runs, all of them succeeded")
    containers = {run["tags"].get("docker/container_id") for run in runs}
    require(None not in containers and len(containers) == len(runs), "each run was in a container of its own")
    images = {run["tags"].get("docker/image") or run["tags"].get("dagster/image") for run in runs}
    require(len(images) == 1, f"all from the code location's image {images.pop()}")
    query = "/mlflow/ajax-api/2.0/mlflow/registered-models/search"
    models = json.loads(stack.ask(query)[1])["registered_models"]
    champion = {alias["alias"]: alias["version"] for alias in models[0]["aliases"]}.get("champion")
    require(champion, f"MLflow's page knows the champion, version {champion} of {models[0]['name']}")
    logs = stack.compose(
        "exec", "-T", "webserver", "sh", "-c", "find /data/home/dagster/compute_logs -name '*.err' | wc -l"
    )
    require(
        int(logs) >= len(runs),
        f"the webserver reads what {int(logs)} steps printed, whose containers have ended",
    )


def runs_write_objects(stack: Stack) -> None:
    """Each line that the container of a run writes is a JSON object, which says of what it is."""

    def published() -> list[dict[str, Any]] | None:
        for state in stack.run_containers().values():
            lines = lines_of(state.split()[1])
            if any(line.get("asset") == "forecasts/published" for line in lines):
                return lines
        return None

    lines = wait_for("the run that published tells so", published, 20, 1)
    about = ("run_id", "job", "step", "asset", "event")
    told = next(line for line in lines if line.get("asset") == "forecasts/published")
    require(
        not [line for line in lines if "text" in line] and set(about) <= told.keys(),
        f"{len(lines)} lines of a run's container are JSON objects, with {', '.join(about)}",
    )
    dagster_s_own = ("code", "webserver", "viewer", "daemon")
    texts = {part: sum("text" in line for line in lines_of(stack.part(part)["Id"])) for part in dagster_s_own}
    require(not any(texts.values()), f"so is each line that {', '.join(dagster_s_own)} write: {texts}")


def lines_of(container: str) -> list[dict[str, Any]]:
    """What a container has written, each line as the object that it is, or as `text`."""
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
    found = []
    for line in f"{done.stdout}{done.stderr}".splitlines():
        try:
            told = json.loads(line)
            found.append(told if isinstance(told, dict) and "level" in told else {"text": line})
        except ValueError:
            found.append({"text": line})
    return found


def api_answers_keys(stack: Stack) -> None:
    """The API is closed without a key, gives what was published with one, and can write its audit alone."""
    paths = ("/v1/forecasts", "/api/v1/forecasts", "/v1/history", "/v1/models")
    without = {path: stack.ask(path, who=None)[0] for path in paths}
    claimed = stack.ask(paths[0], who=None, **{"X-Forwarded-User": "operator"})[0]
    wrong = stack.ask(paths[0], who=None, **{"X-API-Key": "wrong"})[0]
    password = stack.ask(paths[0], "operator")[0]
    require(
        {*without.values(), claimed, wrong, password} == {401},
        "the API answers 401 without a key, with a wrong one, to a made-up user and to a page's password",
    )
    stack.key = stack.turnover("keys", "create", "--name", "try").strip().splitlines()[-1]
    given = wait_for("the API knows the new key", lambda: stack.rows("forecasts"), 30)
    exported = list(csv.DictReader(io.StringIO(stack.turnover("export", "forecasts"))))

    def told(rows: Sequence[Mapping[str, str]]) -> list[tuple[str, ...]]:
        return sorted((r["store"], r["department"], r["week"], f"{float(r['forecast']):.6g}") for r in rows)

    require(told(given) == told(exported), f"with a key it gives all {len(given)} published forecasts")
    look = (
        "for x in home home/published; do if touch /data/$x/x 2>/dev/null; then exit 1; fi; done; "
        "ls /data/home/audit"
    )
    days = wait_for(
        "the audit is on disk",
        lambda: stack.compose("exec", "-T", "api", "sh", "-c", look).split() or None,
        30,
    )
    require(len(days) in (1, 2), f"it can write nothing but its audit ({', '.join(days)})")


def page_shows_forecasts(stack: Stack) -> None:
    """The page with the forecasts: only through the proxy, which says who reads it, and for reading only."""

    def shown(**claimed: str) -> str | None:
        status, content = stack.ask("/", "viewer", **claimed)
        return content.decode() if status == 200 and b"80% range" in content else None

    page = wait_for("the page shows the forecasts", shown, 60)
    require("Signed in as viewer" in page, "the page shows the forecasts, and knows who has a password")
    claimed = shown(**{"X-Forwarded-User": "operator"}) or ""
    require("Signed in as viewer" in claimed, "a name that a client makes up is not believed")
    reached = stack.compose("exec", "-T", "code", "python", "-c", REACH, "dashboard:8050", "api:8000").split()
    require(reached == ["no", "no"], "from the network of runs neither page nor API is in reach")


def quiet(stack: Stack) -> None:
    """Wait until no run is under way, for two looks of the sensors."""

    def look() -> bool | None:
        return True if not any(run["status"] in UNENDED for run in stack.runs()) else None

    for _ in range(2):
        wait_for("no run is under way", look, 240)
        time.sleep(6)


def newer(stack: Stack, before: str) -> str | None:
    """The newest cutoff, once it is newer than one."""
    now = stack.cutoff()
    return now if now > before else None


def killed_run(stack: Stack, week: Path) -> None:
    """A run's container is killed in the middle: the run fails, is tried again, nothing lost or doubled."""
    before = stack.cutoff()
    stack.drop(week)
    victim = wait_for("a refresh is in the middle", lambda: in_the_middle(stack), 180, 0.3)
    call("docker", "kill", stack.run_containers()[victim].split()[1])
    killed = time.monotonic()
    tell(f"killed the container of run {victim[:8]}")
    wait_for(
        "the killed run is marked failed", lambda: True if status(stack, victim) == "FAILURE" else None, 90
    )
    tell(f"the killed run is marked failed after {time.monotonic() - killed:.0f} s")
    after = wait_for("the next attempt forecasts", lambda: newer(stack, before), 240, 3)
    tell(
        f"the next attempt has forecast {time.monotonic() - killed:.0f} s after the kill "
        f"(cutoff {before} → {after})"
    )
    quiet(stack)
    again = [run for run in stack.runs() if run["tags"].get("turnover/attempt") == "2"]
    require(
        len(again) == 1 and again[0]["status"] == "SUCCESS",
        "the run was tried once more, as attempt 2, and once only",
    )
    slots_are_free(stack)
    nothing_lost_or_doubled(stack, week)


def in_the_middle(stack: Stack) -> str | None:
    """A refresh whose container has run some steps."""
    for run in stack.runs():
        if run["jobName"] == "refresh" and run["status"] == "STARTED":
            query = STEPS.replace("RUN_ID", run["runId"])
            steps = stack.graphql(query)["runOrError"]["stepStats"]
            if sum(step["status"] == "SUCCESS" for step in steps) >= 2:
                return str(run["runId"])
    return None


def status(stack: Stack, run_id: str) -> str:
    """Status of a run."""
    return next(run["status"] for run in stack.runs() if run["runId"] == run_id)


def slots_are_free(stack: Stack) -> None:
    """No ended run holds a slot of a pool."""
    query = """query { instance { concurrencyLimits { concurrencyKey activeSlotCount pendingStepCount } } }"""

    def look() -> bool | None:
        pools = stack.graphql(query)["instance"]["concurrencyLimits"]
        taken = [pool for pool in pools if pool["activeSlotCount"] or pool["pendingStepCount"]]
        return True if pools and not taken else None

    wait_for("pool slots are free", look, 90)
    tell("ok: every pool slot is free again")


def nothing_lost_or_doubled(stack: Stack, week: Path) -> None:
    """Each file landed once; the cleaned rows are those of the files, each once; so are the forecasts."""
    rows = Counter((row["store"], row["department"], row["week"]) for row in stack.rows("history"))
    require(rows and max(rows.values()) == 1, f"{len(rows)} cleaned rows, each series and week once")
    sent = csv.DictReader(week.read_text().splitlines())
    keys = {(row["but_num_business_unit"], row["dpt_num_department"], row["day_id"]) for row in sent}
    require(keys <= rows.keys(), f"all {len(keys)} rows of {week.name} are among them")
    forecasts = Counter((row["store"], row["department"], row["week"]) for row in stack.rows("forecasts"))
    require(max(forecasts.values()) == 1, f"{len(forecasts)} forecasts, each series and week once")
    landed = len(list(stack.landing.iterdir()))
    files = list(csv.DictReader(io.StringIO(stack.turnover("files", "--format", "csv"))))
    require(len(files) == landed, f"{landed} files, each of them landed once")


def database_restarted(stack: Stack, week: Path) -> None:
    """Postgres is restarted in the middle of a run: the stack recovers by itself."""
    before = stack.cutoff()
    stack.drop(week)
    wait_for("a refresh is in the middle", lambda: in_the_middle(stack), 180, 0.3)
    stack.compose("restart", "-t", "5", "postgres")
    restarted = time.monotonic()
    tell("restarted Postgres in the middle of a refresh")
    after = wait_for("the week is forecast all the same", lambda: newer(stack, before), 300, 3)
    tell(f"forecast {time.monotonic() - restarted:.0f} s after the restart (cutoff {before} → {after})")
    quiet(stack)
    slots_are_free(stack)
    nothing_lost_or_doubled(stack, week)


def house_is_kept(stack: Stack) -> None:
    """An operator starts a job in the page: housekeeping, which knows its way in Postgres too."""
    found = stack.graphql(LAUNCH)["launchRun"]
    run_id = found["run"]["runId"]
    ended = wait_for(
        "housekeeping ends", lambda: state if (state := status(stack, run_id)) not in UNENDED else None, 150
    )
    require(ended == "SUCCESS", "housekeeping, started in the page, succeeds")


def swept(stack: Stack) -> None:
    """Containers of ended runs go after a while."""
    made = sum("docker/container_id" in run["tags"] for run in stack.runs())
    wait_for("ended containers are removed", lambda: None if stack.run_containers() else True, 120)
    tell(f"ok: {made} run containers were made, and none is left behind")


def down_and_up(stack: Stack) -> None:
    """The stack is taken down and comes up again: all history is there, and nothing is done twice."""

    def history() -> tuple[Any, ...]:
        runs = sorted((run["runId"], run["status"]) for run in stack.runs())
        models = json.loads(stack.ask(MODELS)[1])
        return runs, models, wait_for("the API serves", lambda: stack.rows("forecasts"), 60)

    before = history()
    stack.compose("down")
    start(stack, "healthy again after down and up")
    time.sleep(20)  # time for sensors to do something that they should not
    quiet(stack)
    require(
        history() == before,
        f"after down and up all is there: {len(before[0])} runs, models, forecasts; no new run",
    )


def watched(stack: Stack) -> None:
    """Prometheus has the metrics, and knows the alert rules."""

    def look() -> float | None:
        found = json.loads(stack.ask("/prometheus/api/v1/query?query=turnover_runs")[1])["data"]["result"]
        return float(len(found)) or None

    wait_for("Prometheus has the metrics", look, 90)
    up = "/prometheus/api/v1/query?query=up%3D%3D1"

    def scraped() -> bool | None:
        found = json.loads(stack.ask(up)[1])["data"]["result"]
        return True if {one["metric"]["job"] for one in found} == {"turnover", "turnover-api"} else None

    wait_for("Prometheus reads the platform's metrics and the API's", scraped, 60)
    query = "/prometheus/api/v1/query?query=turnover_scrape_errors_total%3E0"
    unread = [part["metric"]["part"] for part in json.loads(stack.ask(query)[1])["data"]["result"]]
    require(not unread, f"every part of the metrics can be read {unread or ''}".rstrip())
    rules = json.loads(stack.ask("/prometheus/api/v1/rules?type=alert")[1])["data"]["groups"]
    count = sum(len(group["rules"]) for group in rules)
    require(count > 10, f"Prometheus reads the metrics and judges {count} alert rules")


def put_back(stack: Stack) -> None:
    """What docs/deployment.md says on backups, word by word: saved, changed, and put back as it was."""
    save, restore = documented(TOP / "docs" / "deployment.md", "Backup")
    runs = sorted(run["runId"] for run in stack.runs())
    models = stack.ask(MODELS)[1]
    began = time.monotonic()
    stack.carry_out(save)
    tell(f"saved while everything runs, in {time.monotonic() - began:.0f} s")
    again = stack.graphql(LAUNCH)["launchRun"]["run"]["runId"]  # which the saved records do not know
    ended = wait_for(
        "it ends", lambda: None if status(stack, again) in UNENDED else status(stack, again), 150
    )
    require(ended == "SUCCESS", "one more run, which what was saved does not know")
    began = time.monotonic()
    stack.carry_out(restore)
    start(stack, "healthy with what was saved")
    tell(f"put back in {time.monotonic() - began:.0f} s")
    quiet(stack)
    require(sorted(run["runId"] for run in stack.runs()) == runs, "the runs are those that were saved")
    require(stack.ask(MODELS)[1] == models, "so are the models")
    wait_for("forecasts are served", lambda: stack.rows("forecasts"), 60)
    tell("ok: the API serves what was put back, to the key that was put back")


@contextmanager
def stack_of_its_own(port: int, *, keep: bool) -> Iterator[Stack]:
    """A stack in a temporary folder; everything of it is removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="turnover-try-"))
    folder.chmod(0o755)
    stack = Stack(folder, port)
    try:
        yield stack
    except BaseException:
        print(
            stack.compose("ps", check=False),
            stack.compose("logs", "--tail", "15", check=False),
            file=sys.stderr,
        )
        raise
    finally:
        if keep:
            tell(f"left running: COMPOSE with --env-file {stack.env_file}")
        else:
            remove(stack.name)
            shutil.rmtree(folder, ignore_errors=True)


def remove(name: str) -> None:
    """Remove a stack with its runs, volumes and networks; images stay, for the next build."""
    of_compose = f"label=com.docker.compose.project={name}"
    for mine in (of_compose, f"label=turnover.stack={name}"):
        if found := call("docker", "ps", "--all", "--quiet", "--filter", mine).split():
            call("docker", "rm", "--force", "--volumes", *found, check=False)
    for kind in ("volume", "network"):
        if found := call("docker", kind, "ls", "--quiet", "--filter", of_compose).split():
            call("docker", kind, "rm", *found, check=False)


def remove_what_was_left() -> None:
    """Remove the stacks of trials that are over: one that was killed would start again with the engine."""
    project = '{{.Label "com.docker.compose.project"}}'
    kinds = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
    names = {name for kind in kinds for name in call("docker", *kind, "--format", project).split()}
    for name in sorted(names):
        found = re.fullmatch(rf"{NAME}(\d+)", name)
        if found and not Path("/proc", found[1]).exists():
            remove(name)
            tell(f"removed {name}, which an earlier trial left")


def free_port() -> int:
    """A port of loopback that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def show(port: int, *, fresh: bool, keep: bool) -> None:
    """Everything in turn."""
    remove_what_was_left()
    before = listening_sockets()
    with stack_of_its_own(port, keep=keep) as stack:
        build(stack, fresh=fresh)
        missing_secrets_stop_the_start(stack)
        start(stack)
        inside_the_image(stack)
        closed_without_a_password(stack)
        viewers_change_nothing(stack)
        nothing_listens_elsewhere(stack, before)
        the_gate_holds(stack)
        history, weeks = sample(stack)
        first_forecast(stack, history)
        api_answers_keys(stack)
        page_shows_forecasts(stack)
        watched(stack)
        killed_run(stack, weeks[0])
        database_restarted(stack, weeks[1])
        house_is_kept(stack)
        swept(stack)
        down_and_up(stack)
        put_back(stack)
    tell("everything is as it should be")


def main() -> int:
    """Run it, where there is an engine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, help="port of the proxy on loopback (default: a free one)")
    parser.add_argument("--fresh", action="store_true", help="build without what earlier builds left")
    parser.add_argument("--keep", action="store_true", help="leave the stack running, until the next trial")
    parser.add_argument("--patience", type=float, default=1.0, help="factor for all limits of time")
    wanted = parser.parse_args()
    PATIENCE.factor = wanted.patience
    return tried(lambda: show(wanted.port or free_port(), fresh=wanted.fresh, keep=wanted.keep))


if __name__ == "__main__":
    sys.exit(main())
