#!/usr/bin/env python3
"""engine-gate: what the daemon may ask of the Docker engine, and nothing else.

Who can make containers on an engine as they like owns the machine. This stands between the daemon and the
engine's socket and lets through only what starting, watching, stopping and removing this stack's run
containers needs:

- a container is made from the stack's own image, on its own network, with its own volumes, carrying its own
  label, with a read-only root, no capabilities and no new privileges; every other option that is set is
  refused;
- a container is looked at, started, stopped or removed only if it carries that label;
- containers are listed only by that label. Nothing is pulled, built, executed in, attached to, or
  configured.

It answers 403 with the reason, which ends up in the events of the run. The standard library is all it uses.
"""

import argparse
import json
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

LONGEST_BODY = 1 << 20
PATIENCE_SECONDS = 90.0  # more than the grace period of a container that is told to stop
CONTAINER = re.compile(r"(?:/v[\d.]+)?/containers/(?P<id>[0-9a-zA-Z_.-]+)(?P<verb>/json|/start|/stop)?")
CREATE = re.compile(r"(?:/v[\d.]+)?/containers/create")
LIST = re.compile(r"(?:/v[\d.]+)?/containers/json")
OPEN = re.compile(r"(?:/v[\d.]+)?/(?:_ping|version)")
VERBS = {("GET", "/json"), ("POST", "/start"), ("POST", "/stop"), ("DELETE", None)}
# Options that change nothing but how much a container may use and what is called how.
HARMLESS = {
    "Hostname", "Env", "Cmd", "Labels", "Image", "Volumes", "AttachStdout", "AttachStderr", "Healthcheck",
    "HostConfig", "NetworkingConfig", "StopSignal", "StopTimeout", "WorkingDir",
}  # fmt: skip
HARMLESS_ON_HOST = {
    "Binds", "NetworkMode", "ReadonlyRootfs", "CapDrop", "SecurityOpt", "Tmpfs", "Memory", "MemorySwap",
    "NanoCpus", "CpuShares", "PidsLimit", "Init", "LogConfig", "OomScoreAdj", "ShmSize",
}  # fmt: skip


@dataclass(frozen=True)
class Policy:
    """What run containers of this stack are.

    Attributes:
        images: Images that they are made from.
        label: `KEY=VALUE` that they carry.
        network: The one network that they are on.
        binds: Volumes and folders that they may have, as `SOURCE:TARGET:MODE`.
    """

    images: frozenset[str]
    label: str
    network: str
    binds: frozenset[str]

    def owns(self, labels: Mapping[str, str] | None) -> bool:
        """Whether a container with these labels is of this stack."""
        key, _, value = self.label.partition("=")
        return (labels or {}).get(key) == value

    def objections(self, wanted: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with a container that is to be made; nothing where it may be.

        Args:
            wanted: The body of the engine's request «create a container».
        """
        host = wanted.get("HostConfig") or {}
        if wanted.get("Image") not in self.images:
            yield f"the image {wanted.get('Image')!r} is not the stack's"
        if not self.owns(wanted.get("Labels")):
            yield f"the label {self.label} is missing"
        for name in sorted(name for name, value in wanted.items() if value and name not in HARMLESS):
            yield f"{name} is set"
        for name in sorted(name for name, value in host.items() if value and name not in HARMLESS_ON_HOST):
            yield f"HostConfig.{name} is set"
        networks = {
            host.get("NetworkMode"),
            *((wanted.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}),
        }
        if foreign := networks - {self.network}:
            yield f"the network {sorted(map(str, foreign))[0]} is not the stack's"
        if foreign := set(host.get("Binds") or ()) - self.binds:
            yield f"the volume {sorted(foreign)[0]} is not one of a run's"
        if host.get("ReadonlyRootfs") is not True:
            yield "the root file system is not read-only"
        if host.get("CapDrop") != ["ALL"]:
            yield "capabilities are not dropped"
        if host.get("SecurityOpt") not in (["no-new-privileges"], ["no-new-privileges:true"]):
            yield "new privileges are possible, or another security option is set"


class _Engine(HTTPConnection):
    """The engine, by its socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class RefusedError(Exception):
    """What is asked for is not let through; the message says why."""


class Gate(BaseHTTPRequestHandler):
    """Answers requests under a policy; `handler` makes the class for one."""

    policy: ClassVar[Policy]
    engine_socket: ClassVar[str]
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_SECONDS

    def answer(self) -> None:
        """Judge a request, then pass it on or refuse it."""
        try:
            body = self._body()
            self._judge(urlsplit(self.path), body)
            status, kind, content = self._ask(self.command, self.path, body)
        except RefusedError as refusal:
            print(f"refused {self.command} {self.path}: {refusal}", file=sys.stderr, flush=True)
            status, kind = 403, "application/json"
            content = json.dumps({"message": f"engine-gate: {refusal}"}).encode()
        except OSError as error:
            status, kind = 502, "application/json"
            content = json.dumps({"message": f"engine-gate: the engine cannot be asked: {error}"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.command != "HEAD" else b"")

    do_GET = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815  the names that the base class calls

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length") or "0"
        if self.headers.get("Transfer-Encoding") or not length.isdigit() or int(length) > LONGEST_BODY:
            self.close_connection = True
            raise RefusedError("a body of unknown or great length")
        return self.rfile.read(int(length))

    def _judge(self, url: Any, body: bytes) -> None:
        if self.command in ("GET", "HEAD") and OPEN.fullmatch(url.path):
            return None
        if self.command == "GET" and LIST.fullmatch(url.path):
            return self._judge_list(parse_qs(url.query))
        if self.command == "POST" and CREATE.fullmatch(url.path):
            return self._judge_new(body)
        found = CONTAINER.fullmatch(url.path)
        if found is None or (self.command, found["verb"]) not in VERBS:
            raise RefusedError("nothing that running Dagster's runs needs")
        if body.strip() not in (b"", b"{}", b"null"):
            raise RefusedError("a body where there should be none")
        self._judge_owner(found["id"])
        return None

    def _judge_list(self, query: Mapping[str, list[str]]) -> None:
        filters = _parsed(query.get("filters", ["{}"])[-1].encode())
        labels = filters.get("label") or []
        if self.policy.label not in labels:
            raise RefusedError(f"containers are listed by the label {self.policy.label} only")

    def _judge_new(self, body: bytes) -> None:
        if objections := list(self.policy.objections(_parsed(body))):
            raise RefusedError("; ".join(objections))

    def _judge_owner(self, name: str) -> None:
        status, _, content = self._ask("GET", f"/containers/{name}/json", b"")
        if status == 200 and not self.policy.owns(_parsed(content).get("Config", {}).get("Labels")):
            raise RefusedError("a container that is not this stack's")

    def _ask(self, method: str, target: str, body: bytes) -> tuple[int, str, bytes]:
        engine = _Engine(self.engine_socket)
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            engine.request(method, target, body or None, headers)
            reply = engine.getresponse()
            return reply.status, reply.headers.get("Content-Type", "application/json"), reply.read()
        finally:
            engine.close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name of the base class
        """Only refusals are worth a line."""


def handler(policy: Policy, engine_socket: str) -> type[Gate]:
    """The class that answers requests under a policy, for the engine with that socket."""
    return type("BoundGate", (Gate,), {"policy": policy, "engine_socket": engine_socket})


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        raise RefusedError("what should be JSON is not") from None
    if not isinstance(found, dict):
        raise RefusedError("what should be an object is not")
    return found


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--image", action="append", required=True, help="image of run containers; may be repeated"
    )
    parser.add_argument("--label", required=True, help="KEY=VALUE that run containers carry")
    parser.add_argument("--network", required=True, help="network of run containers")
    parser.add_argument("--bind", action="append", default=[], help="SOURCE:TARGET:MODE that they may have")
    parser.add_argument("--port", type=int, default=2375)
    parser.add_argument("--socket", default="/var/run/docker.sock")
    wanted = parser.parse_args()
    policy = Policy(frozenset(wanted.image), wanted.label, wanted.network, frozenset(wanted.bind))
    ThreadingHTTPServer(("0.0.0.0", wanted.port), handler(policy, wanted.socket)).serve_forever()


if __name__ == "__main__":
    main()
