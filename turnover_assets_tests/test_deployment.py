"""The container stack: its files held against each other and the settings; none of this needs Docker."""

import json
import re
import runpy
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core.operator_metrics import METRICS
from turnover_assets.errors import TurnoverError
from turnover_assets.maintenance import keep_house
from turnover_assets.settings import Settings, load_settings

TOP = Path(__file__).resolve().parent.parent
DEPLOY = TOP / "deploy"
COMPOSE_TEXT = (TOP / "docker-compose.yaml").read_text("utf-8")
DOCKERFILES = [TOP / "Dockerfile", DEPLOY / "nginx" / "Dockerfile"]
LOCKS = [TOP / "deploy" / "locks" / f"{name}.lock" for name in ("build", "dagster", "platform")]
HOME_DECIDES = {"home", "landing", "dagster_config"}  # fixed in the image and the compose file
# What only servers of forecasts read; they in turn read little else.
SERVED = re.compile(
    r"(api|dashboard|oidc|proxy_user|session|audit|what_if)_.+|allowed_hosts|trusted_proxies|metrics_networks|"
    "snapshot_poll_seconds"
)
ALSO_SERVED = {"home", "panel", "threads", "memory_limit", "log_format"}
SENT_BY_SENSORS = {"alert_webhook_url", "alert_smtp_password"}  # which run in the code location alone
SERVERS = ("api", "dashboard")  # of forecasts
ENDS = {"home", "databases"}  # once they have made what the others need
GIVEN = {
    "COMPOSE_PROJECT_NAME": "turnover",
    "DAGSTER_POSTGRES_PASSWORD": "a-password",
    "MLFLOW_POSTGRES_PASSWORD": "another-password",
    "STACK_VERSION": "abc",
    "STACK_SECRETS": "/stack/secrets",
    "STACK_LANDING": "/stack/landing",
    "STACK_CONFIG": "/stack/config",
    "STACK_DOCKER_GROUP": "999",
}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def substituted(text: str, given: dict[str, str]) -> str:
    """A text with its variables filled in as Compose does; KeyError on one that is required and not given."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if given.get(name):
            return given[name]
        if kind == "-":
            return str(rest)
        raise KeyError(f"{name} {rest}")

    return VARIABLE.sub(value, text)


def lines_of_effect(text: str) -> str:
    """A YAML text without its comments, where variables are only talked about."""
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    """The compose file as it is with what deploy/init gives."""
    found: dict[str, Any] = yaml.safe_load(substituted(lines_of_effect(COMPOSE_TEXT), GIVEN))
    return found


@pytest.fixture(scope="module")
def context(stack: dict[str, Any]) -> dict[str, Any]:
    """What the code location says that a run's container gets."""
    found: dict[str, Any] = json.loads(stack["services"]["code"]["environment"]["DAGSTER_CONTAINER_CONTEXT"])
    return found["docker"]


def load(name: str) -> ModuleType:
    """A program of the image as a module."""
    spec = spec_from_file_location(name, DEPLOY / "image" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# The compose file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_what_must_be_set_has_no_default_and_says_what_to_do(missing: str) -> None:
    given = {name: value for name, value in GIVEN.items() if name != missing}

    with pytest.raises(KeyError, match=rf"{missing} is not set; run deploy/init"):
        substituted(lines_of_effect(COMPOSE_TEXT), given)


def test_no_password_stands_in_the_compose_file() -> None:
    empty = r"\$\{(TURNOVER_ALERT|AWS)_\w+:-\}"
    secret = re.compile(rf"^\s+\w*(PASSWORD|SECRET|TOKEN|KEY)\w*: (?!\$\{{\w+:[?]|{empty})")

    assert not [line for line in COMPOSE_TEXT.splitlines() if secret.search(line)]


def test_every_part_is_hardened_limited_and_watched(stack: dict[str, Any]) -> None:
    for name, part in stack["services"].items():
        assert part["read_only"] is True, name
        assert part["cap_drop"] == ["ALL"], name
        assert part["security_opt"] == ["no-new-privileges:true"], name
        assert not part.get("privileged"), name
        assert {"mem_limit", "cpus", "pids_limit", "logging", "networks"} <= part.keys(), name
        assert part["healthcheck"].get("test") or name in ENDS, name
    assert {name for name, part in stack["services"].items() if "cap_add" in part} == {"postgres"}
    assert stack["services"]["postgres"]["init"] is False  # it could not pass on the signal to stop


def test_every_image_is_pinned(stack: dict[str, Any]) -> None:
    for name, part in stack["services"].items():
        _, _, tag = part["image"].rpartition(":")
        assert re.search(r"\d|abc", tag), (name, tag)
        assert "latest" not in part["image"], name


def test_only_the_proxy_is_published_and_on_loopback_by_default(stack: dict[str, Any]) -> None:
    published = {name: part["ports"] for name, part in stack["services"].items() if "ports" in part}

    assert published == {"proxy": ["127.0.0.1:8443:8443"]}
    assert not [name for name, part in stack["services"].items() if "network_mode" in part]


def test_parts_that_need_no_way_out_have_none(stack: dict[str, Any]) -> None:
    internal = {name for name, network in stack["networks"].items() if network.get("internal")}
    outward = {name for name, part in stack["services"].items() if set(part["networks"]) - internal}

    assert outward == {"proxy", "code"}


def test_the_engines_socket_is_reached_through_the_gate_alone(stack: dict[str, Any]) -> None:
    services = stack["services"]
    with_socket = {
        name for name, part in services.items() if "docker.sock" in json.dumps(part.get("volumes", []))
    }
    on_its_network = {name for name, part in services.items() if "engine" in part["networks"]}

    assert with_socket == {"engine-gate"}
    assert on_its_network == {"engine-gate", "daemon", "webserver", "sweeper"}


def test_every_setting_reaches_the_parts_and_the_runs(stack: dict[str, Any], context: dict[str, Any]) -> None:
    others = {name for name in Settings.model_fields if not SERVED.fullmatch(name)}
    wanted = {f"TURNOVER_{name.upper()}" for name in others - {"dagster_config"}}
    private = {f"TURNOVER_{name.upper()}" for name in SENT_BY_SENSORS}

    assert wanted <= stack["services"]["code"]["environment"].keys()
    assert {name.partition("=")[0] for name in context["env_vars"]} >= wanted - private
    assert not {name.partition("=")[0] for name in context["env_vars"]} & private


@pytest.mark.parametrize("name", SERVERS)
def test_servers_have_their_settings_and_none_that_they_do_not_read(stack: dict[str, Any], name: str) -> None:
    found = {key for key in stack["services"][name]["environment"] if key.startswith("TURNOVER_")}
    wanted = {key for key in Settings.model_fields if SERVED.fullmatch(key)} | ALSO_SERVED

    assert found == {f"TURNOVER_{key.upper()}" for key in wanted}


@pytest.mark.parametrize("name", SERVERS)
def test_servers_of_forecasts_read_the_home_write_the_audit_and_reach_nothing_else(
    stack: dict[str, Any], name: str
) -> None:
    part, services = stack["services"][name], stack["services"]

    assert part["volumes"] == ["home:/data:ro", "audit:/data/home/audit", "/stack/config:/config:ro"]
    assert part["networks"] == ["serving"]
    assert stack["networks"]["serving"]["internal"] is True
    on_it = {other for other, found in services.items() if "serving" in found["networks"]}
    assert on_it == {"proxy", "prometheus", *SERVERS}  # who is trusted to name a user there
    assert part["environment"]["TURNOVER_TRUSTED_PROXIES"] == "0.0.0.0/0"
    given = json.dumps(part["environment"])
    assert "PASSWORD" not in given
    assert "password" not in given


def test_names_without_a_value_that_runs_get_are_set_in_the_daemon(
    stack: dict[str, Any], context: dict[str, Any]
) -> None:
    bare = {name for name in context["env_vars"] if "=" not in name}

    assert bare <= stack["services"]["daemon"]["environment"].keys()
    secret = {"DAGSTER_POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY"}
    secret |= {"TURNOVER_POSTGRES_URL", "TURNOVER_MLFLOW_URI"}
    assert secret <= bare  # a value would stand in the records of every run
    assert "password" not in json.dumps(context)


def test_mlflow_s_page_and_the_runs_have_the_same_database_of_their_own(stack: dict[str, Any]) -> None:
    settings = load_settings(mlflow_uri=stack["services"]["code"]["environment"]["TURNOVER_MLFLOW_URI"])
    mlflow, script = stack["services"]["mlflow"], (DEPLOY / "postgres" / "databases.sh").read_text("utf-8")

    assert mlflow["environment"]["MLFLOW_BACKEND_STORE_URI"] == settings.mlflow_database
    assert "--backend-store-uri" not in mlflow["command"]  # where everyone on the machine could read it
    assert settings.mlflow_database.endswith("//mlflow:another-password@postgres:5432/mlflow")
    assert "CREATE DATABASE mlflow OWNER mlflow" in script
    assert stack["services"]["mlflow"]["depends_on"]["databases"]["condition"].endswith("successfully")


def test_runs_have_the_volumes_of_the_code_location(stack: dict[str, Any], context: dict[str, Any]) -> None:
    code = [
        f"turnover-{volume}:rw" if volume.startswith(("home:", "audit:")) else volume
        for volume in stack["services"]["code"]["volumes"]
    ]

    assert context["container_kwargs"]["volumes"] == code
    assert context["networks"] == [stack["networks"]["inside"]["name"]]
    assert stack["volumes"]["home"]["name"] == "turnover-home"


def test_runs_are_made_from_the_code_locations_image(stack: dict[str, Any]) -> None:
    code = stack["services"]["code"]

    assert code["environment"]["DAGSTER_CONTAINER_IMAGE"] == code["image"]
    assert f"--image={code['image']}" in stack["services"]["engine-gate"]["command"]


# The gate -----------------------------------------------------------------------------------------


def run_container(stack: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """The request that the launcher makes of the engine for a run, as docker-py writes it."""
    from docker.models.containers import _create_container_args
    from docker.types import ContainerConfig

    wanted = {**context["container_kwargs"]}
    wanted.pop("stop_timeout")
    image = stack["services"]["code"]["image"]
    arguments = _create_container_args(
        {
            **wanted,
            "image": image,
            "command": ["dagster", "api", "execute_run"],
            "detach": True,
            "network": context["networks"][0],
            "environment": {"A": "b"},
            "version": "1.44",
        }
    )
    return dict(ContainerConfig("1.44", **arguments))


def policy_of(stack: dict[str, Any]) -> Any:
    """The policy that the compose file gives the gate."""
    gate = load("engine_gate")
    _, *options = stack["services"]["engine-gate"]["command"]
    told = [option.removeprefix("--").partition("=")[::2] for option in options]
    values = {name: [value for key, value in told if key == name] for name, _ in told}
    return gate.Policy(
        frozenset(values["image"]), values["label"][0], values["network"][0], frozenset(values["bind"])
    )


def test_the_gate_lets_the_stacks_own_runs_through(stack: dict[str, Any], context: dict[str, Any]) -> None:
    assert list(policy_of(stack).objections(run_container(stack, context))) == []


@pytest.mark.parametrize(
    ("part", "name", "value", "objection"),
    [
        (None, "Image", "postgres:17", "image"),
        (None, "Labels", {}, "label"),
        (None, "User", "root", "User is set"),
        (None, "Entrypoint", ["sh"], "Entrypoint is set"),
        (None, "SomethingNew", 1, "SomethingNew is set"),
        ("HostConfig", "Privileged", True, "Privileged is set"),
        ("HostConfig", "Binds", ["/:/host:rw"], "volume /:/host:rw"),
        ("HostConfig", "Mounts", [{"Type": "bind", "Source": "/", "Target": "/host"}], "Mounts is set"),
        ("HostConfig", "NetworkMode", "host", "network host"),
        ("HostConfig", "PidMode", "host", "PidMode is set"),
        ("HostConfig", "CapAdd", ["SYS_ADMIN"], "CapAdd is set"),
        ("HostConfig", "CapDrop", [], "capabilities"),
        ("HostConfig", "Devices", [{"PathOnHost": "/dev/sda"}], "Devices is set"),
        ("HostConfig", "VolumesFrom", ["postgres"], "VolumesFrom is set"),
        ("HostConfig", "ReadonlyRootfs", False, "read-only"),
        ("HostConfig", "SecurityOpt", ["apparmor=unconfined"], "security option"),
    ],
    ids=str,
)
def test_the_gate_refuses_any_other_container(
    stack: dict[str, Any], context: dict[str, Any], part: str | None, name: str, value: Any, objection: str
) -> None:
    wanted = run_container(stack, context)
    (wanted[part] if part else wanted)[name] = value

    objections = list(policy_of(stack).objections(wanted))

    assert len(objections) == 1
    assert objection in objections[0]


# Dagster's configuration --------------------------------------------------------------------------


def test_the_stacks_dagster_configuration_is_one_that_dagster_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from dagster._core.instance.ref import InstanceRef
    from dagster_docker import DockerRunLauncher

    for name in ("HOST", "DATABASE", "USER", "PASSWORD"):
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", "x")
    (tmp_path / "dagster.yaml").write_bytes((DEPLOY / "dagster.yaml").read_bytes())

    reference = InstanceRef.from_dir(str(tmp_path))

    assert isinstance(reference.run_launcher, DockerRunLauncher)
    assert reference.storage_data is not None
    assert reference.storage_data.class_name == "DagsterPostgresStorage"
    assert reference.settings["run_monitoring"]["free_slots_after_run_end_seconds"] > 0
    assert reference.settings["concurrency"]["pools"] == {"default_limit": 1, "granularity": "op"}
    assert reference.settings["run_retries"] == {"enabled": False}  # sensors number their attempts themselves


def test_runs_write_what_the_embedded_default_s_runs_write() -> None:
    embedded, stacked = (
        yaml.safe_load(path.read_text("utf-8"))["python_logs"]
        for path in (TOP / "dagster.yaml", DEPLOY / "dagster.yaml")
    )

    assert stacked == embedded


def test_the_code_location_starts_as_its_image_does_but_for_the_form_of_its_logs(
    stack: dict[str, Any],
) -> None:
    *_, image_s = re.findall(
        r"^CMD (\[.*?\])$", (TOP / "Dockerfile").read_text("utf-8").replace("\\\n", ""), re.M
    )

    assert stack["services"]["code"]["command"] == [*json.loads(image_s), "--log-format", "colored"]
    for name in ("webserver", "viewer", "daemon"):
        assert stack["services"][name]["command"][-2:] == ["--log-format", "colored"]


def test_the_workspace_asks_the_code_location_of_the_stack(stack: dict[str, Any]) -> None:
    server = yaml.safe_load((DEPLOY / "workspace.yaml").read_text("utf-8"))["load_from"][0]["grpc_server"]
    health = stack["services"][server["host"]]["healthcheck"]["test"]

    assert health == ["CMD", "healthy", "grpc", f"127.0.0.1:{server['port']}"]


# Images -------------------------------------------------------------------------------------------


def locked(path: Path) -> dict[str, str]:
    """Versions in a lock, by package."""
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", path.read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_the_images_have_the_versions_that_are_tested(lock: Path) -> None:
    assert locked(lock).items() <= locked(TOP / "requirements.lock").items()


def test_each_image_has_what_it_needs_and_no_more() -> None:
    lean, platform = locked(DEPLOY / "locks" / "dagster.lock"), locked(DEPLOY / "locks" / "platform.lock")

    assert {"dagster-webserver", "dagster-docker", "dagster-postgres"} <= lean.keys() <= platform.keys()
    assert not {"pandas", "mlflow", "duckdb", "scikit-learn", "xgboost-cpu", "matplotlib"} & lean.keys()
    assert not {"pytest", "ruff", "mypy", "hypothesis", "hatchling", "optuna"} & platform.keys()


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_images_are_built_on_pinned_bases_for_a_user_without_rights(dockerfile: Path) -> None:
    text = dockerfile.read_text("utf-8")

    defaults = re.findall(r"^ARG \w+_IMAGE=(\S+)", text, re.MULTILINE)
    assert defaults
    assert not [image for image in defaults if image.endswith(":latest") or ":" not in image]
    assert "USER 10001:10001" in text
    assert "--mount" not in text  # the classic builder knows none
    assert not re.search(r"apt-get install.*(gcc|build-essential|-dev\b)", text)


def test_the_build_sees_only_what_the_image_needs() -> None:
    rules = [line for line in (TOP / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (TOP / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}

    assert rules[0] == "*"
    kept = {rule.removeprefix("!").rstrip("/") for rule in rules if rule.startswith("!")}
    assert {source for source in sources if not any(_within(source, rule) for rule in kept)} == set()
    assert not [rule for rule in kept if "secret" in rule or rule in (".env", "stack", ".git")]


def _within(source: str, rule: str) -> bool:
    return Path(source).match(rule) or source == rule or source.startswith(f"{rule}/")


# Programs -----------------------------------------------------------------------------------------


def test_healthy_says_whether_a_file_was_touched_lately(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    healthy = load("healthy")

    assert healthy.main(["file", str(alive), "60"]) == 1
    alive.touch()
    assert healthy.main(["file", str(alive), "60"]) == 0
    assert healthy.main(["file", str(alive), "-1"]) == 1
    assert healthy.main(["http", "http://127.0.0.1:1/"]) == 1
    assert healthy.main(["grpc", "127.0.0.1:1"]) == 1
    assert healthy.main(["daemon", "60"]) == 1  # no database is named here


@pytest.mark.parametrize(
    ("facts", "idle"),
    [
        (
            {"Created": "2020-01-01T00:00:00.1Z", "State": {"FinishedAt": "0001-01-01T00:00:00Z"}},
            "since made",
        ),
        (
            {"Created": "2020-01-01T00:00:00Z", "State": {"FinishedAt": "2020-01-02T00:00:00.123Z"}},
            "since ended",
        ),
    ],
    ids=["never started", "ended"],
)
def test_the_sweeper_knows_how_long_a_container_has_been_idle(facts: dict[str, Any], idle: str) -> None:
    sweeper = load("sweep_containers")
    day = 86_400.0 if idle == "since ended" else 0.0

    made = sweeper._idle_seconds({"Created": "2020-01-01T00:00:00Z", "State": {"FinishedAt": "0001-"}})

    assert made - sweeper._idle_seconds(facts) == pytest.approx(day, abs=2)


def test_init_keeps_what_is_there_and_shows_passwords_once(tmp_path: Path) -> None:
    command = [str(DEPLOY / "init"), "--folder", str(tmp_path / "stack"), "--env-file", str(tmp_path / "env")]

    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kept = (tmp_path / "env").read_text()
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert [line.split()[0] for line in first.splitlines()] == ["operator", "viewer"]
    assert again == ""
    assert sorted((tmp_path / "env").read_text().splitlines()) == sorted(kept.splitlines())
    assert (tmp_path / "env").stat().st_mode & 0o077 == 0
    assert (tmp_path / "stack" / "secrets").stat().st_mode & 0o077 == 0
    assert first.split()[1] not in "".join(
        path.read_text() for path in (tmp_path / "stack" / "secrets").iterdir()
    )
    given = dict(line.split("=", 1) for line in kept.splitlines())
    assert given.keys() >= GIVEN.keys()


def test_init_names_the_images_of_a_release(tmp_path: Path, stack: dict[str, Any]) -> None:
    command = [str(DEPLOY / "init"), "--folder", str(tmp_path / "stack"), "--env-file", str(tmp_path / "env")]
    release = ["--images", "ghcr.io/someone/turnover-assets", "--release", "1.2.3"]

    subprocess.run([*command, *release], capture_output=True, check=True)
    given = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    refused = subprocess.run([*command, *release[:2]], capture_output=True, check=False)

    given["STACK_DOCKER_GROUP"] = given["STACK_DOCKER_GROUP"] or "999"  # empty without an engine's socket
    services = yaml.safe_load(substituted(lines_of_effect(COMPOSE_TEXT), given))["services"].values()
    ours = {part["image"] for part in services if part["image"].startswith("ghcr.io/")}
    name = "ghcr.io/someone/turnover-assets"
    assert ours == {f"{name}:1.2.3", f"{name}-dagster:1.2.3", f"{name}-proxy:1.2.3"}
    assert refused.returncode == 2
    assert len({line.split("=")[0] for line in (tmp_path / "env").read_text().splitlines()}) == len(given)


def test_the_show_can_be_read_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DEPLOY)
    told = subprocess.run(
        [sys.executable, str(DEPLOY / "try.py"), "--help"], capture_output=True, check=True
    ).stdout

    assert b"--fresh" in told
    assert runpy.run_path(str(DEPLOY / "try.py"))["PARTS"] <= set(yaml.safe_load(
        substituted(lines_of_effect(COMPOSE_TEXT), GIVEN))["services"])  # fmt: skip


def test_the_text_has_the_commands_that_a_newcomer_is_tried_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DEPLOY)
    documented = runpy.run_path(str(DEPLOY / "trials.py"))["documented"]
    page = TOP / "docs" / "deployment.md"
    trial = runpy.run_path(str(DEPLOY / "try_from_clone.py"))

    start, sample, read = documented(page, "Start")
    (line,) = documented(TOP / "README.md", "Deploy it")

    assert start.startswith("git clone … ")
    entered = [command.partition("#")[0].strip() for command in start.splitlines()[1:]]
    assert entered == line.partition("#")[0].strip().split(" && ")
    assert line.split()[-1] == trial["URL"]
    assert "turnover sample" in sample
    assert "export forecasts > forecasts.csv" in read
    assert "openssl passwd" in documented(page, "Pages")[0]
    verbs = [
        command.split("#")[0].split() for command in documented(page, "Keys of the REST API")[0].splitlines()
    ]
    assert [("keys" in words, words[0]) for words in verbs] == [
        (True, "docker"), (False, "curl"), (True, "docker"), (True, "docker")
    ]  # fmt: skip


# Monitoring ---------------------------------------------------------------------------------------


def test_the_stacks_prometheus_differs_from_the_other_in_where_the_metrics_are() -> None:
    alone, stacked = (
        yaml.safe_load((DEPLOY / "prometheus" / f"{n}.yml").read_text()) for n in ("prometheus", "stack")
    )

    api = stacked["scrape_configs"].pop()
    assert api == {"job_name": "turnover-api", "static_configs": [{"targets": ["api:8000"]}]}
    assert stacked["scrape_configs"][0].pop("static_configs") == [{"targets": ["metrics:9464"]}]
    alone["scrape_configs"][0].pop("static_configs")
    assert stacked == alone


@pytest.mark.parametrize(
    "board", sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")), ids=lambda path: path.stem
)
def test_dashboards_ask_for_metrics_that_there_are(board: Path) -> None:
    found = json.loads(board.read_text("utf-8"))
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ][0]
    rules = yaml.safe_load((DEPLOY / "prometheus" / "turnover.rules.yml").read_text("utf-8"))
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}

    panels = [panel for panel in found["panels"] if panel["type"] != "row"]
    asked = {
        name
        for p in panels
        for t in p["targets"]
        for name in re.findall(r"\bturnover[_:][a-z_:]+", t["expr"])
    }

    assert asked
    assert asked <= METRICS.keys() | recorded
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])


def test_grafanas_alerts_ask_the_provisioned_data_source() -> None:
    alerts = yaml.safe_load((DEPLOY / "grafana/provisioning/alerting/turnover.yaml").read_text("utf-8"))

    for rule in (rule for group in alerts["groups"] for rule in group["rules"]):
        steps = {step["refId"]: step for step in rule["data"]}
        assert rule["condition"] in steps
        assert {step["datasourceUid"] for step in rule["data"]} == {"turnover-prometheus", "__expr__"}
        assert all(
            step["model"]["expression"] in steps for step in rule["data"] if "expression" in step["model"]
        )


# The package in the stack --------------------------------------------------------------------------


def test_prepare_makes_a_home_with_the_configuration_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TURNOVER_DAGSTER_CONFIG", str(DEPLOY / "dagster.yaml"))

    done = CliRunner().invoke(app, ["prepare"])

    assert done.exit_code == 0
    written = (tmp_path / "home" / "dagster" / "dagster.yaml").read_bytes()
    assert written == (DEPLOY / "dagster.yaml").read_bytes()


def test_prepare_says_what_is_wrong_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TURNOVER_DAGSTER_CONFIG", str(tmp_path / "missing.yaml"))

    done = CliRunner().invoke(app, ["prepare"])

    assert done.exit_code == 1
    assert "No such file" in done.stderr


def test_runs_that_have_containers_are_not_executed_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "dagster.yaml"
    config.write_text("run_launcher: {module: dagster_docker, class: DockerRunLauncher}\n")
    settings = load_settings(home=tmp_path / "home", dagster_config=config)

    with pytest.raises(TurnoverError, match=r"started by Dagster's daemon \(DockerRunLauncher\).*housekeep"):
        keep_house(settings, lambda _kind, _text: None)
