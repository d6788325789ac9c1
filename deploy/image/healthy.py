#!/usr/bin/env python3
"""healthy KIND [TARGET]: ends with 0 where a part of the stack answers, with 1 and a line on why where not.

    healthy http http://127.0.0.1:3000/server_info    the page answers without an error
    healthy grpc 127.0.0.1:4000                       the code location serves its definitions
    healthy file /tmp/alive 60                        the file was touched within so many seconds
    healthy daemon 180                                Dagster's daemon gave a sign within so many seconds

Imports as little as it can, since each check starts it anew.
"""

import os
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

PATIENCE_SECONDS = 15.0
DAEMONS = ("SENSOR", "QUEUED_RUN_COORDINATOR", "MONITORING")
LAST_SIGNS = """
SELECT daemon_type, extract(epoch FROM (now() AT TIME ZONE 'utc') - timestamp)::float
FROM daemon_heartbeats WHERE daemon_type IN %s
"""


def http(url: str) -> None:
    """Ask for a page; an error status raises."""
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
        answer.read(1)


def grpc(target: str) -> None:
    """Ask Dagster's code server for its health, by gRPC's own protocol."""
    from grpc import insecure_channel
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    with insecure_channel(target) as channel:
        answer = HealthStub(channel).Check(HealthCheckRequest(service="DagsterApi"), timeout=PATIENCE_SECONDS)
    if answer.status != HealthCheckResponse.SERVING:
        raise OSError(f"{target} says {HealthCheckResponse.ServingStatus.Name(answer.status)}")


def file(path: str, seconds: str) -> None:
    """See that a file was touched lately."""
    age = time.time() - Path(path).stat().st_mtime
    if age > float(seconds):
        raise OSError(f"{path} was last touched {age:.0f} s ago")


def daemon(seconds: str) -> None:
    """See that the parts of the daemon without which nothing runs gave a sign lately, from Dagster's records.

    Dagster's own `dagster-daemon liveness-check` says the same, after some seconds of imports each time.
    """
    import psycopg2

    connection = psycopg2.connect(
        host=os.environ["DAGSTER_POSTGRES_HOST"],
        dbname=os.environ["DAGSTER_POSTGRES_DATABASE"],
        user=os.environ["DAGSTER_POSTGRES_USER"],
        password=os.environ["DAGSTER_POSTGRES_PASSWORD"],
        connect_timeout=int(PATIENCE_SECONDS),
    )
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(LAST_SIGNS, [DAEMONS])
        signs = dict(cursor.fetchall())
    if silent := [name for name in DAEMONS if signs.get(name, float("inf")) > float(seconds)]:
        raise OSError(f"no sign for {seconds} s of {', '.join(silent)}")


CHECKS = {"http": http, "grpc": grpc, "file": file, "daemon": daemon}


def main(arguments: list[str]) -> int:
    """Run the check that the arguments name."""
    try:
        CHECKS[arguments[0]](*arguments[1:])
    except Exception as error:  # noqa: BLE001  whatever it is, the part is not healthy
        print(f"{' '.join(arguments)}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
