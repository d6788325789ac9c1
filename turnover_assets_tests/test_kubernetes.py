"""The manifests and the values for Dagster's chart: valid, hardened, closed, with commands that are there."""

import re
import subprocess
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets_tests.linters import REPOSITORY, passes, tool

FOLDER = REPOSITORY / "deploy" / "kubernetes"
BASE = FOLDER / "base"
KUBERNETES = ("1.29", "1.37")  # the oldest and the newest that it is held against
USER = 10001  # of the images
HOME = ("turnover-assets/home", "mounted")
PODS = ("dagsterWebserver", "dagsterDaemon")  # of the chart's own, beside the user deployments
# What goes on into pods, the launcher or the instance as it is, and is held against their schemas.
PASSED_ON = {
    *(
        "env",
        "envSecrets",
        "affinity",
        "podSecurityContext",
        "securityContext",
        "resources",
        "readinessProbe",
    ),
    *(
        "livenessProbe",
        "volumes",
        "volumeMounts",
        "podTemplateSpecMetadata",
        "podSpecConfig",
        "jobSpecConfig",
    ),
    *("postgresqlParams", "additionalInstanceConfig", "terminal", "queuedRunCoordinator"),
}


def manifests() -> Iterator[dict[str, Any]]:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text("utf-8"))["resources"]
    for name in listed:
        yield from yaml.safe_load_all((BASE / name).read_text("utf-8"))


def values() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "dagster-values.yaml").read_text("utf-8"))
    return found


def pod(part: dict[str, Any], command: list[str] | None = None) -> dict[str, Any]:
    """A pod as the chart makes it of a part of the values."""
    container = {
        "name": "main",
        "image": ":".join(str(part["image"][key]) for key in ("repository", "tag"))
        if "image" in part
        else "run",
        "env": part.get("env", []),
        "envFrom": [{"secretRef": secret} for secret in part.get("envSecrets", ())],
        **{key: part[key] for key in ("securityContext", "resources", "volumeMounts")},
        **{key: probe(part[key]) for key in ("readinessProbe", "livenessProbe") if key in part},
    }
    return {
        "metadata": {"labels": part["labels"]},
        "spec": {
            "securityContext": part["podSecurityContext"],
            "containers": [container | ({"command": command} if command else {})],
            "volumes": part["volumes"],
            **({"affinity": part["affinity"]} if "affinity" in part else {}),
        },
    }


def probe(found: dict[str, Any]) -> dict[str, Any]:
    """A probe as the chart makes it: of the code location, Dagster's own check."""
    told = {key: value for key, value in found.items() if key != "enabled"}
    return told if {"httpGet", "exec"} & told.keys() else {"exec": {"command": ["dagster"]}, **told}


def pods() -> dict[str, dict[str, Any]]:
    """Every pod, those of the manifests and those that the chart and the launcher make, by name."""
    found = {
        f"{one['kind']} {one['metadata']['name']}": one["spec"]["template"]
        for one in manifests()
        if "template" in one.get("spec", {})
    }
    told = values()
    for name in PODS:
        found[name] = pod(told[name])
    for deployment in told["dagster-user-deployments"]["deployments"]:
        found[deployment["name"]] = pod(deployment)
    launcher = told["runLauncher"]["config"]["k8sRunLauncher"]
    spec = launcher["runK8sConfig"]["podSpecConfig"]
    found["run"] = pod(
        {**launcher, "podSecurityContext": spec["securityContext"], "affinity": spec["affinity"]}
    )
    return found


@pytest.fixture(params=sorted(pods()))
def one_pod(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each pod in its turn."""
    return pods()[request.param]


# Hardened ----------------------------------------------------------------------------------------


def test_a_pod_is_nobody_with_no_rights_and_a_root_that_it_cannot_write(one_pod: dict[str, Any]) -> None:
    security = one_pod["spec"]["securityContext"]
    (container,) = one_pod["spec"]["containers"]

    assert security["runAsNonRoot"] is True
    assert {security["runAsUser"], security["runAsGroup"], security["fsGroup"]} == {USER}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & one_pod["spec"].keys()


def test_a_pod_says_what_it_needs_and_may_take_and_writes_to_volumes_of_its_own(
    one_pod: dict[str, Any],
) -> None:
    (container,) = one_pod["spec"]["containers"]

    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]
    whole = [mount for mount in container["volumeMounts"] if "subPath" not in mount]
    mounts = {mount["name"]: mount["mountPath"] for mount in whole}
    assert mounts.keys() == {volume["name"] for volume in one_pod["spec"]["volumes"]}
    assert mounts["tmp"] == "/tmp"
    assert not any("hostPath" in volume for volume in one_pod["spec"]["volumes"])


def test_who_mounts_the_home_is_on_its_machine_and_nobody_else_is_labelled_so(
    one_pod: dict[str, Any],
) -> None:
    mounted = any("persistentVolumeClaim" in volume for volume in one_pod["spec"]["volumes"])

    assert (HOME in one_pod["metadata"]["labels"].items()) == mounted
    if mounted:
        (term,) = one_pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert term["labelSelector"]["matchLabels"] == dict([HOME])


def test_what_stays_up_has_probes_but_the_daemon_s_readiness() -> None:
    for name, found in pods().items():
        if name in ("run", "Job turnover-home"):
            continue
        (container,) = found["spec"]["containers"]
        wanted = {"livenessProbe"} if name == "dagsterDaemon" else {"readinessProbe"}
        assert wanted <= container.keys(), name


def test_no_password_is_in_the_files() -> None:
    told = yaml.dump(values())

    assert "postgresqlPassword:" not in told
    assert not values()["generatePostgresqlPasswordSecret"]
    assert not [one for one in manifests() if one["kind"] == "Secret"]
    for name, found in pods().items():
        for variable in found["spec"]["containers"][0].get("env", ()):
            if "PASSWORD" in variable["name"]:
                assert "secretKeyRef" in variable["valueFrom"], name


# Closed ------------------------------------------------------------------------------------------


def policies() -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"] for one in manifests() if one["kind"] == "NetworkPolicy"}


def selected(selector: dict[str, Any], part: str) -> bool:
    """Whether a selector, by the label of the part, takes it."""
    by_label = selector.get("matchLabels", {}).get("turnover-assets/part", part) == part
    return by_label and all(part in one["values"] for one in selector.get("matchExpressions", ()))


def test_nothing_is_open_that_no_policy_opens() -> None:
    assert policies()["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, spec in policies().items():
        assert all(rule.get("from") for rule in spec.get("ingress", ())), name
        assert all(rule["ports"] for kind in ("ingress", "egress") for rule in spec.get(kind, ())), name


@pytest.mark.parametrize(
    ("part", "ports"),
    {
        "webserver": {8080, 5000, 8050},
        "daemon": set(),
        "code": {4000},
        "run": set(),
        "home": set(),
        "mlflow": {8080, 5000, 8050},
        "dashboard": {8080, 5000, 8050},
        "metrics": {9464},
        "api": {8000},
    }.items(),
)
def test_a_part_is_reached_at_its_ports_alone(part: str, ports: set[int]) -> None:
    opened = {
        port["port"]
        for spec in policies().values()
        if selected(spec["podSelector"], part)
        for rule in spec.get("ingress", ())
        for port in rule["ports"]
    }

    assert opened == ports


def test_policies_are_for_parts_that_there_are() -> None:
    labels = {found["metadata"]["labels"]["turnover-assets/part"] for found in pods().values()}
    named = set(re.findall(r"turnover-assets/part: (\w+)", (BASE / "network.yaml").read_text("utf-8")))
    for listed in re.findall(r"operator: In, values: \[(.*?)\]", (BASE / "network.yaml").read_text("utf-8")):
        named |= {name.strip() for name in listed.split(",")}

    assert named <= labels
    assert labels - named == {"home"}


def test_only_what_has_no_state_is_had_several_times_and_the_autoscalers_mean_it() -> None:
    told, found = values()["dagsterWebserver"], list(manifests())
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]["minReplicas"]
        for one in found
        if one["kind"] == "HorizontalPodAutoscaler"
    }
    budgets = [
        one["spec"]["selector"]["matchLabels"] for one in found if one["kind"] == "PodDisruptionBudget"
    ]
    replicas = {
        one["metadata"]["name"]: one["spec"].get("replicas", "as the autoscaler says")
        for one in found
        if one["kind"] == "Deployment"
    }

    assert scaled == {f"turnover-{told['nameOverride']}": told["replicaCount"], "turnover-api": 2}
    assert all(labels in budgets for labels in (told["labels"], {"turnover-assets/part": "api"}))
    assert len(budgets) == len(scaled)
    others = {name: count for name, count in replicas.items() if name not in scaled}
    assert set(others.values()) == {1}
    assert replicas["turnover-api"] == "as the autoscaler says"


@pytest.mark.parametrize("name", ["api", "dashboard"])
def test_what_serves_forecasts_writes_nothing_but_the_audit(name: str) -> None:
    (container,) = pods()[f"Deployment turnover-{name}"]["spec"]["containers"]
    home = [mount for mount in container["volumeMounts"] if mount["name"] == "home"]

    assert home == [
        {"name": "home", "mountPath": "/data", "readOnly": True},
        {"name": "home", "mountPath": "/data/audit", "subPath": "audit"},
    ]
    assert not [one for one in container["env"] if "PASSWORD" in one["name"] or "SECRET" in one["name"]]


# Commands and settings ---------------------------------------------------------------------------


def test_every_turnover_command_is_there_with_its_options() -> None:
    found = [one["spec"]["containers"][0].get("command", []) for one in pods().values()]
    ours = [command for command in found if command[:1] == ["turnover"]]

    assert len(ours) == 4
    for _, name, *arguments in ours:
        shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
        assert shown.exit_code == 0, name
        assert [
            option for option in arguments if option.startswith("--") and option not in shown.output
        ] == []


def test_the_database_is_the_same_wherever_it_is_named() -> None:
    told = values()["postgresql"]
    named = {
        "DAGSTER_POSTGRES_HOST": told["postgresqlHost"],
        "DAGSTER_POSTGRES_DATABASE": told["postgresqlDatabase"],
        "DAGSTER_POSTGRES_USER": told["postgresqlUsername"],
    }
    secret = {"name": values()["global"]["postgresqlSecretName"], "key": "postgresql-password"}

    for name in ("turnover-assets", "Deployment turnover-metrics"):
        env = {one["name"]: one for one in pods()[name]["spec"]["containers"][0]["env"]}
        assert {key: env[key]["value"] for key in named} == named
        assert env["DAGSTER_POSTGRES_PASSWORD"]["valueFrom"] == {"secretKeyRef": secret}


def test_mlflow_s_page_reads_the_records_that_code_location_and_runs_write() -> None:
    env = {one["name"]: one for one in pods()["Deployment turnover-mlflow"]["spec"]["containers"][0]["env"]}
    secret = env["MLFLOW_BACKEND_STORE_URI"]["valueFrom"]["secretKeyRef"]

    assert secret == {"name": "turnover-mlflow", "key": "TURNOVER_MLFLOW_URI"}
    for name in ("turnover-assets", "run"):
        given = pods()[name]["spec"]["containers"][0]["envFrom"]
        assert "turnover-mlflow" in [one["secretRef"]["name"] for one in given], name


def test_runs_have_the_code_location_s_settings_and_secrets() -> None:
    (code,) = values()["dagster-user-deployments"]["deployments"]
    runs = values()["runLauncher"]["config"]["k8sRunLauncher"]

    ours = [one for one in code["env"] if one["name"].startswith("TURNOVER_")]
    assert [f"{one['name']}={one['value']}" for one in ours] == runs["envVars"]
    assert code["envSecrets"] == runs["envSecrets"]
    assert not code["includeConfigInLaunchedRuns"]["enabled"]


def test_the_instance_is_as_closed_as_the_embedded_one() -> None:
    embedded = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text("utf-8"))
    told = values()

    pools = told["concurrency"]["pools"]
    assert pools == {
        "defaultLimit": embedded["concurrency"]["pools"]["default_limit"],
        "granularity": embedded["concurrency"]["pools"]["granularity"],
    }
    assert (
        told["concurrency"]["runs"]["maxConcurrentRuns"]
        == embedded["concurrency"]["runs"]["max_concurrent_runs"]
    )
    assert told["dagsterDaemon"]["runMonitoring"]["freeSlotsAfterRunEndSeconds"] > 0
    assert not told["dagsterDaemon"]["runRetries"]["enabled"]
    assert told["additionalInstanceConfig"]["freshness"] == embedded["freshness"]


def objects(
    told: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Every object in the values whose keys the chart reads, with its path."""
    if isinstance(told, dict):
        yield path, told
        for key, value in told.items():
            if key not in PASSED_ON:
                yield from objects(value, (*path, key))
    elif isinstance(told, list):
        for number, value in enumerate(told):
            yield from objects(value, (*path, number))


def objections(told: dict[str, Any]) -> list[str]:
    """What the schema has against values."""
    schema = yaml.safe_load((FOLDER / "values.schema.yaml").read_text("utf-8"))
    found = jsonschema_rs.validator_for(schema).iter_errors(told)
    return [f"{'.'.join(map(str, one.instance_path))}: {one.message}" for one in found]


def test_the_values_say_nothing_that_the_chart_does_not_know() -> None:
    assert objections(values()) == []


def test_a_key_that_the_chart_does_not_know_is_found_wherever_it_is() -> None:
    unseen, looked_at = [], 0
    for path, _ in objects(values()):
        told = values()
        place = reduce(lambda found, key: found[key], path, told)
        if path[-2:] != ("customComputeLogManager", "config"):  # which is the class's own
            place["knownNowhere"], looked_at = True, looked_at + 1
            unseen += [] if any("knownNowhere" in one for one in objections(told)) else [path]

    assert unseen == []
    assert looked_at > 30


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("concurrency", "pools", "granularity"), "step"),
        (("concurrency", "pools", "defaultLimit"), "1"),
        (("dagsterWebserver", "image", "tag"), 1.0),
        (("dagsterDaemon", "runMonitoring", "startTimeoutSeconds"), "300"),
        (("runLauncher", "config", "k8sRunLauncher", "envVars"), {"TURNOVER_HOME": "/data"}),
        (("dagster-user-deployments", "deployments"), []),
    ],
    ids=lambda one: ".".join(one) if isinstance(one, tuple) else None,
)
def test_a_value_of_the_wrong_kind_is_found(path: tuple[str, ...], value: Any) -> None:
    told = values()
    reduce(lambda found, key: found[key], path[:-1], told)[path[-1]] = value

    assert [one for one in objections(told) if one.startswith(".".join(path))]


def test_what_goes_into_the_instance_as_it_is_is_known_to_dagster() -> None:
    schema = dagster_instance_config_schema()
    told = values()
    config = {"python_logs": {"dagster_handler_config": told["pythonLogs"]["dagsterHandlerConfig"]}}
    config |= told["additionalInstanceConfig"]

    found = process_config(resolve_to_config_type(schema), config)

    assert found.success, found.errors
    assert (
        config["python_logs"]
        == yaml.safe_load((REPOSITORY / "dagster.yaml").read_text("utf-8"))["python_logs"]
    )


def test_the_chart_s_version_and_the_launcher_s_are_those_of_the_locked_dagster() -> None:
    lock = (REPOSITORY / "requirements.lock").read_text("utf-8")
    dagster = re.search(r"^dagster==(\S+)", lock, re.MULTILINE)
    docker = re.search(r"^dagster-docker==(\S+)", lock, re.MULTILINE)
    assert dagster
    assert docker

    for path in (FOLDER / "dagster-values.yaml", REPOSITORY / ".github" / "workflows" / "ci.yml"):
        assert re.findall(r"--version (\S+)", path.read_text("utf-8")) == [dagster[1]], path
    assert f"dagster-k8s=={docker[1]} " in (REPOSITORY / "requirements-kubernetes.lock").read_text("utf-8")


def test_the_lock_for_kubernetes_only_adds_to_the_lock() -> None:
    def names(lock: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9._-]+)==", (REPOSITORY / lock).read_text("utf-8"), re.MULTILINE))

    assert not names("requirements-kubernetes.lock") & names("requirements.lock")


def test_the_launcher_takes_its_configuration() -> None:
    k8s = pytest.importorskip("dagster_k8s", reason="dagster-k8s is missing; `make kubernetes` installs it")
    told = values()["runLauncher"]["config"]["k8sRunLauncher"]
    config = {  # as the chart writes it
        "load_incluster_config": told["loadInclusterConfig"],
        "job_namespace": told["jobNamespace"],
        "image_pull_policy": told["imagePullPolicy"],
        "service_account_name": "turnover-dagster",
        "dagster_home": values()["global"]["dagsterHome"],
        "instance_config_map": "turnover-dagster-instance",
        "postgres_password_secret": values()["global"]["postgresqlSecretName"],
        "env_vars": told["envVars"],
        "env_secrets": [secret["name"] for secret in told["envSecrets"]],
        "volumes": told["volumes"],
        "volume_mounts": told["volumeMounts"],
        "labels": told["labels"],
        "resources": told["resources"],
        "security_context": told["securityContext"],
        "fail_pod_on_run_failure": told["failPodOnRunFailure"],
        "run_k8s_config": {
            "pod_template_spec_metadata": told["runK8sConfig"]["podTemplateSpecMetadata"],
            "pod_spec_config": told["runK8sConfig"]["podSpecConfig"],
            "job_spec_config": told["runK8sConfig"]["jobSpecConfig"],
        },
    }

    found = process_config(resolve_to_config_type(k8s.K8sRunLauncher.config_type()), config)

    assert found.success, found.errors


# Tools -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", KUBERNETES)
def test_the_manifests_follow_kubernetes_schemas(tmp_path: Path, version: str) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(yaml.dump_all(manifests()))

    passes(tool("kubernetes-validate"), "--strict", "--kubernetes-version", version, path)


@pytest.mark.parametrize("version", KUBERNETES)
def test_what_the_values_say_of_pods_follows_kubernetes_schemas(tmp_path: Path, version: str) -> None:
    found = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": re.sub(r"\W", "-", name).lower(), **one["metadata"]},
            "spec": one["spec"],
        }
        for name, one in pods().items()
    ]
    path = tmp_path / "pods.yaml"
    path.write_text(yaml.dump_all(found))

    passes(tool("kubernetes-validate"), "--strict", "--kubernetes-version", version, path)


def test_a_manifest_that_is_wrong_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.dump({"apiVersion": "v1", "kind": "Service", "spec": {"port": 1}}))

    with pytest.raises(AssertionError, match="port"):
        passes(tool("kubernetes-validate"), "--strict", path)


def test_kustomize_builds_the_base_with_the_site_s_images() -> None:
    kubectl = tool("kubectl")

    built = subprocess.run([kubectl, "kustomize", BASE], capture_output=True, text=True, check=True).stdout

    images = {line.split("image: ")[1] for line in built.splitlines() if "image: " in line}
    assert images == {"registry.example.com/turnover-assets-kubernetes:1.0.0"}
    assert built.count("\nkind: ") == len(list(manifests()))
