"""The endpoint that Prometheus asks: /metrics and /healthz by HTTP.

What belongs here: paths, and starting and ending the server. What does not: what is told (collector.py).
"""

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from turnover_assets.errors import TurnoverError
from turnover_assets.observability.collector import HomeCollector

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PLAIN = [("Content-Type", "text/plain; charset=utf-8")]


class _Server(ThreadingWSGIServer):
    """Of the address family that the host asks for."""

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)


class _Handler(WSGIRequestHandler):
    """Logs nothing, and does not wait for ever for a request that does not come."""

    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name of the base class
        pass


def registry_of(collector: HomeCollector) -> CollectorRegistry:
    """A registry of its own, without what prometheus-client tells of the process by default."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return registry


def text_of(collector: HomeCollector) -> str:
    """The metrics now, as Prometheus text."""
    return generate_latest(registry_of(collector)).decode()


def application(collector: HomeCollector) -> "WSGIApplication":
    """The WSGI application: metrics, health, and a word for everything else."""
    metrics = make_wsgi_app(registry_of(collector))

    def answer(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            found: Iterable[bytes] = metrics(environ, start)
            return found
        if path == "/healthz":
            start("200 OK", PLAIN)
            return [b"ok\n"]
        start("404 Not Found", PLAIN)
        return [b"Metrics are at /metrics; /healthz says whether this answers.\n"]

    return answer


def server(collector: HomeCollector, host: str, port: int) -> WSGIServer:
    """A server that listens and answers once `serve_forever` is called; a thread for each request.

    Raises:
        TurnoverError: It cannot listen there.
    """
    try:
        return make_server(host, port, application(collector), _Server, _Handler)
    except OSError as error:
        raise TurnoverError(
            f"Metrics cannot be served at {host} port {port} ({error.strerror or error}). Choose others with "
            "--host and --port."
        ) from None
