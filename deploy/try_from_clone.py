#!/usr/bin/env python3
"""deploy/try_from_clone.py: what README.md and docs/deployment.md tell a new user, word by word.

Clones what is committed here, and takes every command from the text: clone, init, build, up, a synthetic
retailer's files into the landing folder, forecasts on the page and as a file, a user, a key for the REST API.
Settings are those that `deploy/init` writes, so the stack has the name and the port of a real one, and this
refuses to begin where one is taken. It tells what was seen and how long it took, removes what it made, and
ends with 1 if anything was not as it is written. Five to ten minutes.

Base images as for try.py. Needs Python, git, openssl, curl, `script` (util-linux) and Docker with Compose.
"""

import argparse
import base64
import csv
import os
import re
import shlex
import shutil
import socket
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from trials import PATIENCE, call, compose_program, documented, require, tell, tried, wait_for

TOP = Path(__file__).resolve().parent.parent
DOCUMENT = Path("docs") / "deployment.md"
PROJECT, URL, PARTS = "turnover", "https://localhost:8443", 13  # as the text says


class Newcomer:
    """Somebody with a shell, a folder, and the text."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clone = folder, folder / "turnover-assets"
        self.passwords: dict[str, str] = {}

    def enter(self, script: str, folder: Path, *, terminal: bool = True, **options: str) -> str:
        """Enter commands in a terminal, or with `typed` on standard input; give what is printed."""
        program = compose_program()
        if program != ["docker", "compose"]:  # as the text says to do with 1.29
            other = (
                f'if [ "$1" = compose ]; then shift; {shlex.join(program)} "$@"; else command docker "$@"; fi'
            )
            script = f"docker() {{ {other}; }}\n{script}"
        command = ["bash", "-euo", "pipefail", "-c", script]
        if terminal:
            command = ["script", "--quiet", "--return", "--command", shlex.join(command), "/dev/null"]
        typed = options.pop("typed", None)
        environment = {**os.environ, **options}
        return call(*command, cwd=folder, input=typed, env=environment, start_new_session=True)

    def open(self, path: str, who: str) -> tuple[int, str]:
        """Open a page in a browser that trusts the stack's own certificate."""
        tls = ssl.create_default_context(cafile=self.clone / "stack" / "secrets" / "tls_certificate")
        both = base64.b64encode(f"{who}:{self.passwords[who]}".encode()).decode()
        request = urllib.request.Request(f"{URL}{path}", headers={"Authorization": f"Basic {both}"})
        try:
            with urllib.request.urlopen(request, timeout=30, context=tls) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def parts() -> dict[str, str]:
    """Id and state of the parts that run, as `docker ps` shows them."""
    mine = f"label=com.docker.compose.project={PROJECT}"
    told = call("docker", "ps", "--no-trunc", "--filter", mine, "--format", "{{.ID}} {{.Status}}")
    return dict(line.split(" ", 1) for line in told.splitlines())


def nothing_is_there() -> None:
    """A stack of this name, its data, or a program at its port is somebody's: this ends before it begins."""
    mine = f"label=com.docker.compose.project={PROJECT}"
    found = call("docker", "ps", "--all", "--quiet", "--filter", mine).split()
    found += call("docker", "volume", "ls", "--quiet", "--filter", f"name=^{PROJECT}-").split()
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", 8443)) == 0
    require(
        not found and not taken,
        f"no stack `{PROJECT}`, nothing of one, and nothing at port 8443 {found or ''}",
    )


def started(user: Newcomer) -> None:
    """From the clone to parts that are healthy and a page that asks who one is."""
    start = documented(TOP / DOCUMENT, "Start")[0]
    require("git clone … " in start, "the first command of the text is to clone")
    began = time.monotonic()
    told = user.enter(start.replace("git clone …", f"git clone --quiet {shlex.quote(str(TOP))}"), user.folder)
    user.passwords = dict(re.findall(r"^(operator|viewer) (\S+?)\r?$", told, re.MULTILINE))
    require(user.passwords.keys() == {"operator", "viewer"}, "deploy/init shows two passwords")
    tell(f"cloned, made ready, built and started in {time.monotonic() - began:.0f} s")

    def healthy() -> bool | None:
        states = list(parts().values())
        return True if len(states) == PARTS and all("(healthy)" in state for state in states) else None

    wait_for("every part is healthy", healthy, 240)
    tell(f"{PARTS} parts healthy {time.monotonic() - began:.0f} s after the first command")
    require(user.open("/stack", "viewer")[0] == 200, f"{URL}/stack opens with the viewer's password")
    require(user.open("/", "viewer")[0] == 503, f"{URL} says that there are no forecasts yet")


def said_again_nothing_changes(user: Newcomer) -> None:
    """The line of README.md, in the same clone: it starts nothing anew and shows no password again."""
    (line,) = documented(user.clone / "README.md", "Deploy it")
    before = parts().keys()
    told = user.enter(line, user.clone)
    require("operator " not in told, "README's line, entered after it, shows no password again")
    require(parts().keys() == before, "and leaves every part as it runs")


def first_forecast(user: Newcomer) -> None:
    """Files dropped as the text says lead to forecasts on the page, and in a file."""
    _, sample, read = documented(user.clone / DOCUMENT, "Start")
    began = time.monotonic()
    user.enter(sample, user.clone)
    files = sorted(path.name for path in (user.clone / "stack" / "landing").iterdir())
    tell(f"dropped {len(files)} files of a synthetic retailer, {files[0]} first")

    def shown() -> bool | None:
        status, page = user.open("/", "viewer")
        return True if status == 200 and "80% range" in page else None

    wait_for("the page shows forecasts", shown, 600, 3)
    tell(f"ok: {URL} shows forecasts {time.monotonic() - began:.0f} s after the files were dropped")
    told = user.enter(read, user.clone)
    with (user.clone / "forecasts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    series = {(row["store"], row["department"]) for row in rows}
    weeks = {row["week"] for row in rows}
    require(rows and len(weeks) == 8, f"forecasts.csv has 8 weeks of {len(series)} series, {len(rows)} rows")
    require(
        "refresh" in told,
        "`turnover decisions` says what was decided, and `turnover doctor` finds nothing wrong",
    )


def one_more_user(user: Newcomer) -> None:
    """Anna gets a password."""
    (block,) = documented(user.clone / DOCUMENT, "Pages")
    user.passwords["anna"] = "a long password of hers"
    user.enter(block, user.clone, terminal=False, typed="a long password of hers\n" * 2)
    wait_for("Anna sees the forecasts", lambda: user.open("/", "anna")[0] == 200 or None, 60)
    require(
        user.open("/dagster/", "anna")[0] == 401, "Anna's password opens what viewers see, and Dagster not"
    )


def keys_of_the_api(user: Newcomer) -> None:
    """A key is made, used, listed and revoked."""
    create, ask, listed, revoke = documented(user.clone / DOCUMENT, "Keys of the REST API")[0].splitlines()
    key = user.enter(create, user.clone, terminal=False).split()[-1]

    def answer() -> str:
        return user.enter(ask, user.clone, terminal=False, KEY=key)

    wait_for("the key opens the API", lambda: '"forecast"' in answer() or None, 60)
    require(
        "reporting" in user.enter(listed, user.clone), "with its key, `reporting` has forecasts from the API"
    )
    user.enter(revoke, user.clone)
    wait_for("the key opens nothing more", lambda: '"status":401' in answer().replace(" ", "") or None, 60)
    tell("ok: the key is revoked")


def removed(user: Newcomer) -> None:
    """Stop and remove everything that was made; images stay."""
    compose = shlex.join(compose_program())
    user.enter(f"{compose} kill || true", user.clone)
    runs = call("docker", "ps", "--all", "--quiet", "--filter", f"label=turnover.stack={PROJECT}").split()
    if runs:
        call("docker", "rm", "--force", "--volumes", *runs)
    user.enter(f"{compose} down --volumes --remove-orphans", user.clone)


def show(*, keep: bool) -> None:
    """Everything in turn."""
    nothing_is_there()
    user = Newcomer(Path(tempfile.mkdtemp(prefix="turnover-clone-")))
    try:
        started(user)
        said_again_nothing_changes(user)
        first_forecast(user)
        one_more_user(user)
        keys_of_the_api(user)
    finally:
        if keep:
            tell(f"left running: {user.clone}")
        else:
            if (user.clone / ".env").exists():
                removed(user)
            shutil.rmtree(user.folder, ignore_errors=True)
    tell("everything is as it is written")


def main() -> int:
    """Run it, where there is an engine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave the stack running in the end")
    parser.add_argument("--patience", type=float, default=1.0, help="factor for all limits of time")
    wanted = parser.parse_args()
    PATIENCE.factor = wanted.patience
    return tried(lambda: show(keep=wanted.keep))


if __name__ == "__main__":
    sys.exit(main())
