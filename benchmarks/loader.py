"""Load on a server of loopback: `wrk` where it is installed, else a loader of our own.

What belongs here: sending requests, and counting and timing the answers. What does not: what is asked.
"""

import asyncio
import json
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

WRK = shutil.which("wrk")
SCRIPT = """
local requests = {}
local file = io.open("%(requests)s")
local function part()
  local size = file:read("*l")
  if not size then return nil end
  local text = file:read(tonumber(size)); file:read("*l"); return text
end
init = function(args)
  for text in part do requests[#requests + 1] = text end
  math.randomseed(os.time())
end
request = function() return requests[math.random(#requests)] end
%(delay)s
done = function(summary, latency, all)
  local e = summary.errors
  io.stderr:write(string.format(
    '{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "failed": %%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""
DELAY = "delay = function() return -%f * math.log(1 - math.random()) end"  # milliseconds, exponential


@dataclass(frozen=True)
class Request:
    """A request: its address, and the JSON body where it has one."""

    address: str
    body: str | None = None

    def text(self) -> bytes:
        """The request as it is sent."""
        parts = urlsplit(self.address)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        head = f"{'GET' if self.body is None else 'POST'} {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        if self.body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n"
        return f"{head}Accept: */*\r\n\r\n{self.body or ''}".encode()


@dataclass(frozen=True)
class Load:
    """What came of it; times in seconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @staticmethod
    def how() -> str:
        """What loads."""
        return "load by wrk" if WRK else "load by benchmarks/loader.py"


def load(requests: Sequence[Request], seconds: float, connections: int, rate: float | None = None) -> Load:
    """Send requests, drawn at random, over so many connections; as fast as can be, or at about a rate."""
    if WRK:
        return _by_wrk(requests, seconds, connections, rate)
    return asyncio.run(_by_ourselves(requests, seconds, connections, rate))


def _by_wrk(requests: Sequence[Request], seconds: float, connections: int, rate: float | None) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        listed, script = Path(folder) / "requests", Path(folder) / "load.lua"
        texts = [each.text() for each in requests]
        listed.write_bytes(b"".join(b"%d\n%b\n" % (len(text), text) for text in texts))
        delay = "" if rate is None else DELAY % (1000 * connections / rate)
        script.write_text(SCRIPT % {"requests": listed, "delay": delay}, "utf-8")
        parts = urlsplit(requests[0].address)
        command = [str(WRK), "-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s"]
        command += ["--timeout", "10s", "--latency", "-s", str(script), f"{parts.scheme}://{parts.netloc}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
        try:
            return Load(**json.loads(done.stderr[done.stderr.index("{") :]))
        except ValueError:
            raise SystemExit(f"wrk did not work:\n{done.stdout}\n{done.stderr}") from None


async def _by_ourselves(
    requests: Sequence[Request], seconds: float, connections: int, rate: float | None
) -> Load:
    times: list[float] = []
    failures: list[str] = []
    began = time.perf_counter()
    pause = 0.0 if rate is None else connections / rate
    texts, parts = [each.text() for each in requests], urlsplit(requests[0].address)
    rng = random.Random(1)

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while time.perf_counter() - began < seconds:
            if pause:
                await asyncio.sleep(rng.expovariate(1 / pause))
            asked = time.perf_counter()
            try:
                writer.write(rng.choice(texts))
                status = await asyncio.wait_for(_read_answer(reader), 10)
            except (OSError, TimeoutError, EOFError, ValueError) as error:
                failures.append(repr(error))
                writer.close()
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                continue
            times.append(time.perf_counter() - asked)
            if status >= 400:
                failures.append(str(status))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    taken = sorted(times) or [float("nan")]
    p50, p99 = (taken[int(share * (len(taken) - 1))] for share in (0.5, 0.99))
    return Load(len(times), time.perf_counter() - began, p50, p99, len(failures))


async def _read_answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lengths = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
    await reader.readexactly(int(lengths[0].split(":")[1]) if lengths else 0)
    return int(head.split(" ", 2)[1])
