"""Small requests to a service that is awake: through autostart, through nginx, and directly.

The proxy has one core, client (wrk) and service share another. The three are measured in turn, several rounds
of it, and the medians are compared: what colleagues on the machine do hits all of them.
"""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from bench.stand import (
    HOST,
    LIMIT_S,
    OTHER_CORE,
    PROXY_CORE,
    Failed,
    Process,
    Stand,
    demand,
    fast_backend_command,
    free_port,
    pinned,
    process_service,
)
from bench.table import Row, median

TITLE = "Warm: 200-byte GET, 32 connections"

_CONNECTIONS = 32
_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
_NGINX = """
daemon off; master_process off; worker_processes 1; worker_cpu_affinity {mask}; pid {directory}/pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  keepalive_requests 1000000000;
  upstream service {{ server 127.0.0.1:{service}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://service; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $http_host;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk found: requests a second, percentiles in ms, and CPU seconds of the proxy for 10,000 requests."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_s: float


VARIANTS: dict[str, dict[str, bool]] = {
    "autostart": {},
    "autostart, log.requests off": {"requests": False},
}


def measure(
    rounds: int = 5, seconds: int = 4, variants: Mapping[str, Mapping[str, bool]] = VARIANTS
) -> list[Row]:
    """Return the rows; `variants` are settings of the gateway's log. Raises Missing without wrk or nginx."""
    wrk, nginx = demand("wrk"), demand("nginx")
    with Stand() as stand:
        port, nginx_port = free_port(), free_port()
        service = stand.spawn(fast_backend_command(port), core=OTHER_CORE)
        service.wait_for_port(port)
        directory = stand.new_directory()
        config = directory / "nginx.conf"
        mask = f"{1 << PROXY_CORE:b}"
        config.write_text(_NGINX.format(directory=directory, service=port, port=nginx_port, mask=mask))
        proxy = stand.spawn([nginx, "-p", str(directory), "-c", str(config)], core=PROXY_CORE)
        proxy.wait_for_port(nginx_port)
        targets: dict[str, tuple[int, Process]] = {
            "direct": (port, service),
            "nginx": (nginx_port, proxy),
        }
        for name, log in variants.items():
            own_port = free_port()
            command = pinned(OTHER_CORE, fast_backend_command(own_port))
            gateway = stand.gateway(
                {HOST: process_service(own_port, command)}, core=PROXY_CORE, log=dict(log)
            )
            gateway.start()
            targets[name] = (gateway.port, gateway)
        found: dict[str, list[Load]] = {name: [] for name in targets}
        for _ in range(rounds):
            for name, (target, process) in targets.items():
                found[name].append(_load(wrk, target, process, seconds))
    return _rows(found)


def _load(wrk: str, port: int, process: Process, seconds: int) -> Load:
    command = [wrk, "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "--latency", "-H", f"Host: {HOST}"]
    before_s = process.cpu_s
    done = subprocess.run(
        pinned(OTHER_CORE, [*command, f"http://127.0.0.1:{port}/"]),
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + LIMIT_S,
    )
    used_s = process.cpu_s - before_s
    told = done.stdout
    if "Socket errors" in told or "Non-2xx" in told:
        raise Failed(f"not all requests were answered well: {told}")
    rate, total = (
        float(_find(r"Requests/sec:\s+([\d.]+)", told)[0]),
        int(_find(r"(\d+) requests in", told)[0]),
    )
    p50_ms, p99_ms = (
        float(value) * _UNITS_MS[unit]
        for value, unit in (_find(rf"{share}%\s+([\d.]+)(us|ms|s)", told) for share in (50, 99))
    )
    return Load(rate, p50_ms, p99_ms, used_s / max(1, total) * 10_000)


def _find(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise Failed(f"wrk said nothing like {pattern}: {text}")
    return match.groups()


def _rows(found: dict[str, list[Load]]) -> list[Row]:
    nginx_rate = median(load.rate for load in found["nginx"])
    rows = []
    for name, loads in found.items():
        rate = median(load.rate for load in loads)
        cpu_s = median(load.cpu_s for load in loads)
        rates = ", ".join(f"{load.rate / 1000:.1f}k" for load in sorted(loads, key=lambda load: load.rate))
        note = f"{rate / nginx_rate:.2f} of nginx; rounds: {rates}"
        rows += [
            Row(f"{name}: requests/s", rate, "/s", note=note),
            Row(f"{name}: p50", median(load.p50_ms for load in loads), "ms"),
            Row(f"{name}: p99", median(load.p99_ms for load in loads), "ms"),
            Row(f"{name}: CPU for 10,000", cpu_s, "s"),
        ]
    return rows
