"""The workflows: pinned, with the least rights, without text of strangers, with commands that are there."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from turnover_assets_tests.linters import REPOSITORY, passes, tool

FOLDER = REPOSITORY / ".github" / "workflows"
WORKFLOWS = {path.name: path for path in sorted(FOLDER.iterdir())}
# The tag of each commit, looked up in public workflows that name both: each in several, of different owners.
PINS = {
    "actions/checkout": ("de0fac2e4500dabe0009e67214ff5f5447ce83dd", "v6.0.2"),
    "actions/setup-python": ("a309ff8b426b58ec0e2a45f0f869d46889d02405", "v6.2.0"),
    "actions/upload-artifact": ("b7c566a772e6b6bfb58ed0dc250532a479d7789f", "v6.0.0"),
    "actions/download-artifact": ("37930b1c2abaa49bbe596cd826c3c89aef350131", "v7.0.0"),
    "actions/attest-build-provenance": ("a2bbfa25375fe432b6a289bc6b6cd05ecd0c4c32", "v4.1.0"),
    "docker/setup-buildx-action": ("4d04d5d9486b7bd6fa91e7baf45bbb4f8b9deedd", "v4.0.0"),
    "docker/login-action": ("4907a6ddec9925e35a0a9e82d7399ccc52663121", "v4.1.0"),
    "docker/build-push-action": ("bcafcacb16a39f128d818304e6c9c0c18556b85f", "v7.1.0"),
    "sigstore/cosign-installer": ("faadad0cce49287aee09b3a48701e75088a2c6ad", "v4.0.0"),
    "anchore/scan-action": ("7037fa011853d5a11690026fb85feee79f4c946c", "v7.3.2"),
}
# Rights beyond reading, and the one job that each is for.
WRITES = {
    ("release.yml", "build"): {"packages"},
    ("release.yml", "publish"): {"packages", "id-token", "attestations"},
    ("release.yml", "release"): {"contents"},
}
# What the runner has, or an action before it installs.
RUNNERS_OWN = {"sudo", "echo", "mkdir", "tar", "gh", "docker", "cosign", "helm"}


def parsed(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(
        WORKFLOWS[name].read_text("utf-8"), yaml.BaseLoader
    )  # `on` stays a word
    return found


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name in WORKFLOWS:
        for job, content in parsed(name)["jobs"].items():
            yield name, job, content


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job, content in jobs():
        for number, step in enumerate(content.get("steps", ())):
            yield f"{name}, {job}, step {number + 1}", step


def test_the_workflows_are_those_that_are_meant() -> None:
    assert set(WORKFLOWS) == {"ci.yml", "release.yml"}


# Rights ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_action_is_pinned_by_a_known_commit_with_its_tag_beside_it(name: str) -> None:
    lines = [line for line in WORKFLOWS[name].read_text("utf-8").splitlines() if "uses:" in line]
    used = [re.search(r"uses: (\S+?)(?:@([0-9a-f]{40}) # (v[\d.]+))?$", line) for line in lines]

    known = {(action, *pin) for action, pin in PINS.items()}
    foreign = [
        line for line, found in zip(lines, used, strict=True) if not found or found.groups() not in known
    ]

    assert foreign == (
        ["    uses: ./.github/workflows/ci.yml # zizmor: ignore[self-repository]"]
        if name == "release.yml"
        else []
    )


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_no_rights_but_those_of_its_jobs_and_no_trigger_that_lends_some(name: str) -> None:
    found = parsed(name)

    assert found["permissions"] == {}
    assert "concurrency" in found
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(found["on"])


def test_each_job_has_the_least_rights_a_limit_of_time_and_no_more_secrets_than_its_own_token() -> None:
    for name, job, content in jobs():
        rights = content["permissions"]
        writes = {right for right, level in rights.items() if level == "write"}
        assert writes == WRITES.get((name, job), set()), (name, job)
        assert set(rights.values()) <= {"read", "write"}
        assert ("timeout-minutes" in content) != ("uses" in content), (name, job)
        assert "secrets." not in yaml.dump(content), (name, job)


def test_no_checkout_leaves_the_token_behind() -> None:
    for where, step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false", where


def test_commands_take_nothing_from_expressions_which_strangers_could_fill() -> None:
    assert [where for where, step in steps() if "${{" in step.get("run", "")] == []


def test_nothing_gets_a_name_before_it_was_tested_qualified_and_scanned() -> None:
    needs = {job: content.get("needs", []) for name, job, content in jobs() if name == "release.yml"}

    assert {"qualify", "scan", "build"} <= set(needs["publish"])
    assert {"ci", "notes"} <= set(needs["build"])
    assert needs["release"] == "publish"


def test_a_release_builds_scans_and_names_every_image_that_the_stack_builds() -> None:
    services = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text("utf-8"))["services"].values()
    built = {(one["build"]["context"], one["build"].get("target", "")) for one in services if "build" in one}
    found = {job: content.get("strategy", {}).get("matrix", {}) for _, job, content in jobs()}

    images = {row["target"]: row for row in found["build"]["include"] if "target" in row}
    assert {(row["context"], row["stage"]) for row in images.values()} == built
    for job in ("build", "scan"):
        assert found[job]["target"] == list(images), job
    for job in ("scan", "publish"):
        suffixes = {row["target"]: row["suffix"] for row in found[job]["include"] if "target" in row}
        assert suffixes == {name: row["suffix"] for name, row in images.items()}, job


# Commands ----------------------------------------------------------------------------------------


def commands(script: str) -> Iterator[list[str]]:
    """The words of each command of a script; of conditions, what comes after them."""
    for line in script.replace("\\\n", " ").splitlines():
        for command in re.split(r"\s*(?:;|&&|\|\|)\s*", line.strip()):
            words = shlex.split(re.sub(r"\$\(.*?\)|=\(.*?\)", "=X", command))
            while words and (words[0] in ("if", "then", "else", "fi") or re.match(r"\w+=", words[0])):
                words = words[1:]
            if words:
                yield words


def makefile_targets() -> set[str]:
    text = (REPOSITORY / "Makefile").read_text("utf-8")
    return set(re.findall(r"^([a-z0-9-]+):", text, re.MULTILINE))


def test_every_command_is_a_target_or_a_file_of_the_repository_or_the_runner_s() -> None:
    for where, step in steps():
        for words in commands(step.get("run", "")):
            if words[0] == "make":
                assert words[1] in makefile_targets(), where
            elif words[0] in (".venv/bin/pytest", "python3"):
                paths = [word for word in words[1:] if word.endswith(".py")]
                assert paths, where
                assert [path for path in paths if not (REPOSITORY / path).is_file()] == [], where
            elif "/" in words[0]:
                assert (REPOSITORY / words[0]).is_file(), where
                assert (REPOSITORY / words[0]).stat().st_mode & 0o111, where
            else:
                assert words[0] in {*RUNNERS_OWN, "["}, (where, words)


def test_every_script_is_bash_without_errors() -> None:
    for where, step in steps():
        if "run" in step:
            done = subprocess.run(
                ["bash", "-n"], input=step["run"], text=True, capture_output=True, check=False
            )
            assert done.returncode == 0, f"{where}: {done.stderr}"


def test_every_step_s_text_is_on_record_as_run_by_hand_or_with_the_reason_why_it_cannot_be() -> None:
    page = (REPOSITORY / "docs" / "workflow-steps.md").read_text("utf-8")
    listed = re.findall(
        r"^\| (\S+), (\S+): (.+?) \| `([0-9a-f]{12})` \| (.+?) \| (.+?) \|$", page, re.MULTILINE
    )
    there = [
        (name, job, " ".join(step["run"].split())[:40], sha256(step["run"].encode()).hexdigest()[:12])
        for name, job, content in jobs()
        for step in content.get("steps", ())
        if "run" in step
    ]

    assert [(name, job, digest) for name, job, _, digest, *_ in listed] == [
        (name, job, digest) for name, job, _, digest in there
    ]
    for (*_, shown, _, when, told), (*_, text, _) in zip(listed, there, strict=True):
        assert text.startswith(shown.strip("`").removesuffix(" …")), shown
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", when) or (when == "never" and "Needs" in told), shown


def test_the_tests_run_on_every_python_that_the_package_names_and_on_both_duckdbs() -> None:
    matrix = parsed("ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    named = re.findall(r'Python :: (3\.\d+)"', (REPOSITORY / "pyproject.toml").read_text("utf-8"))

    assert matrix["python"] == named
    assert {*matrix["duckdb"], *(row["duckdb"] for row in matrix["include"])} == {"1.5", "2"}


# Tools -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_follows_the_schema_of_workflows(name: str) -> None:
    passes(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", WORKFLOWS[name])


def test_the_audit_of_workflows_finds_nothing() -> None:
    passes(tool("zizmor"), "--offline", "--persona", "pedantic", FOLDER)


def test_the_audit_of_workflows_would_find_something(tmp_path: Path) -> None:
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "bad.yml").write_text(
        "on: pull_request_target\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n"
        "      - run: echo ${{ github.event.pull_request.title }}\n"
    )

    with pytest.raises(AssertionError, match="template-injection"):
        passes(tool("zizmor"), "--offline", folder)
