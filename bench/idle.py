"""What the gateway takes when nothing happens, with many services configured."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.engine import BACKEND_IMAGE, connect
from bench.stand import HOST, Gateway, Missing, Stand, process_service
from bench.table import Row, skipped

TITLE = "Idle: 1,000 services configured"

_MEMORY_MB = 80.0
_CPU_PERCENT = 0.5
"""No measurable CPU is asked for; /proc counts in hundredths of a second."""
_FIRST_PORT = 20_000


def measure(services: int = 1000, seconds: float = 20.0) -> list[Row]:
    """Return the rows: for services that are processes, and for compose projects where an engine runs."""
    rows = measure_processes(services, seconds)
    try:
        connect(BACKEND_IMAGE).close()
    except Missing as exc:
        return [*rows, skipped("compose projects", str(exc))]
    return [*rows, *_rows("compose projects", services, seconds, _project)]


def measure_processes(services: int, seconds: float) -> list[Row]:
    """Return the rows for services that are processes."""
    return _rows("processes", services, seconds, lambda _, port: process_service(port, ["/bin/true"]))


def _project(directory: Path, port: int) -> dict[str, Any]:
    place = directory / f"project{port}"
    place.mkdir()
    web = {"image": BACKEND_IMAGE, "container_name": place.name, "ports": [f"127.0.0.1:{port}:8080"]}
    (place / "docker-compose.yml").write_text(json.dumps({"version": "2.4", "services": {"web": web}}))
    return {
        "composeDir": str(place),
        "containers": [place.name],
        "proxyPort": port,
        "readiness": {"path": "/"},
    }


def _rows(name: str, services: int, seconds: float, make: Callable[[Path, int], dict[str, Any]]) -> list[Row]:
    with Stand() as stand:
        directory = stand.new_directory()
        configured = {
            HOST if not number else f"service{number}.localhost": make(directory, _FIRST_PORT + number)
            for number in range(services)
        }
        begun = time.monotonic()
        gateway = stand.gateway(configured)
        up_s = time.monotonic() - begun
        _settle(gateway)
        before_s = gateway.cpu_s
        time.sleep(seconds)
        share = (gateway.cpu_s - before_s) / seconds * 100
        memory_mb, file_mb = gateway.rss_bytes / 1e6, gateway.file_bytes / 1e6
    note = f"listening after {up_s:.1f} s; of it libraries on disk: {file_mb:.1f} MB"
    return [
        Row(f"{name}: memory", memory_mb, "MB", _MEMORY_MB, note),
        Row(f"{name}: CPU", share, "%", _CPU_PERCENT, f"of one core, over {seconds:g} s"),
    ]


def _settle(gateway: Gateway) -> None:
    """Wait until what follows the start of the program has been done."""
    before_s = -1.0
    while gateway.cpu_s - before_s > 0.01:
        before_s = gateway.cpu_s
        time.sleep(0.5)
