#!/usr/bin/env python3
"""sweep-containers LABEL [--keep SECONDS] [--every SECONDS]: remove ended run containers of one stack.

Each run has a container of its own, and its launcher leaves it behind when it ends. It stays for a while, so
that its exit code and its last words can be looked at; what its steps printed is in the home anyway. Touches
/tmp/alive after each look at the engine that worked.
"""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import docker
from docker.errors import APIError, DockerException

ALIVE = Path("/tmp/alive")
ENDED = ("exited", "dead", "created")


def sweep(client: docker.DockerClient, label: str, keep: float) -> int:
    """Remove containers with a label that ended, or were made and never started, so many seconds ago."""
    removed = 0
    for container in client.containers.list(all=True, filters={"label": label, "status": list(ENDED)}):
        if _idle_seconds(container.attrs) < keep:
            continue
        try:
            container.remove(v=True)
        except APIError as error:  # another process may be removing it
            print(f"{container.name}: {error.explanation}", file=sys.stderr, flush=True)
        else:
            removed += 1
            print(f"removed {container.name} of run {container.labels.get('dagster/run_id')}", flush=True)
    return removed


def _idle_seconds(facts: dict) -> float:
    """For how long a container has not been running, from what the engine tells of it."""
    ended = facts["State"]["FinishedAt"]
    since = facts["Created"] if ended.startswith("0001-") else ended
    return (datetime.now(UTC) - datetime.fromisoformat(since[:19] + "+00:00")).total_seconds()


def main() -> None:
    """Sweep for ever."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("label", help="KEY=VALUE that the stack's run containers carry")
    parser.add_argument("--keep", type=float, default=3600.0, help="seconds for which an ended one stays")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two looks")
    wanted = parser.parse_args()
    client = docker.from_env()
    while True:
        try:
            sweep(client, wanted.label, wanted.keep)
            ALIVE.touch()
        except (DockerException, OSError) as error:
            print(f"the engine cannot be asked: {error}", file=sys.stderr, flush=True)
        time.sleep(wanted.every)


if __name__ == "__main__":
    main()
