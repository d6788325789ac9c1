"""The proxy of the stack for tests: nginx with what ships, on ports of loopback.

What belongs here: running it. What does not: what stands behind it (test_proxy.py, test_docs_curls.py).
"""

import base64
import json
import os
import re
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from turnover_assets_tests.factories import free_port
from turnover_assets_tests.waiting import PATIENCE

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
CONFIGURATION = (DEPLOY / "nginx" / "nginx.conf").read_text("utf-8")
PARTS = sorted(set(re.findall(r"set \$part http://([a-z]+):\d+;", CONFIGURATION)))


@dataclass(frozen=True)
class Proxy:
    """The proxy, and who may pass it.

    Attributes:
        port: Where it listens, on loopback.
        passwords: By name.
        tls: What its certificate is checked against.
    """

    port: int
    passwords: dict[str, str]
    tls: ssl.SSLContext

    @property
    def origin(self) -> str:
        """How a browser names it."""
        return f"https://127.0.0.1:{self.port}"

    def ask(self, path: str, who: str | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """Status, and what reached the part; nothing where none was reached."""
        request = urllib.request.Request(self.origin + path)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        if who:
            both = f"{who}:{self.passwords[who]}".encode()
            request.add_header("Authorization", f"Basic {base64.b64encode(both).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE, context=self.tls) as answer:
                content = answer.read()
                return answer.status, json.loads(content) if content.startswith(b"{") else {}
        except urllib.error.HTTPError as error:
            error.read()
            return error.code, {}


@contextmanager
def running_proxy(folder: Path, parts: Mapping[str, str]) -> Iterator[Proxy]:
    """nginx as `deploy/init` makes its passwords and certificate, in `folder`; skips where there is none.

    Args:
        folder: An empty folder; its `stack/secrets` is that of the container stack.
        parts: Host and port of each part that stands behind it.
    """
    nginx = shutil.which("nginx") or pytest.skip("nginx is not installed (Debian's package nginx-light)")
    port = free_port()
    init = [str(DEPLOY / "init"), "--folder", str(folder / "stack"), "--env-file", str(folder / "env")]
    told = subprocess.run(init, capture_output=True, text=True, check=True).stdout
    (folder / "nginx.conf").write_text(_configuration(folder, port, parts))
    command = [nginx, "-c", str(folder / "nginx.conf"), "-e", "stderr", "-g", "daemon off;"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            tls = ssl.create_default_context(cafile=folder / "stack" / "secrets" / "tls_certificate")
            found = Proxy(port, dict(line.split() for line in told.splitlines()), tls)
            _wait_for(found)
            yield found
        finally:
            process.terminate()


def _configuration(folder: Path, port: int, parts: Mapping[str, str]) -> str:
    """What ships, with paths and ports of a test."""
    text = CONFIGURATION
    for part, place in parts.items():
        text = re.sub(rf"http://{part}:\d+;", f"http://{place};", text)
    for old, new in {
        "/tmp/": f"{folder}/",
        "/run/secrets": f"{folder}/stack/secrets",
        "/usr/share/turnover": str(DEPLOY / "nginx"),
        "listen 127.0.0.1:8081;": f"listen 127.0.0.1:{free_port()};",
        "listen 8443 ssl;": f"listen 127.0.0.1:{port} ssl;",
    }.items():
        assert old in text
        text = text.replace(old, new)
    return ("user root;\n" if os.geteuid() == 0 else "") + text


def _wait_for(proxy: Proxy) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            proxy.ask("/")
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return
