"""A project's containers: which they are, whether they run, where they listen.

The engine's list only finds them. It lags behind: with 20.10 a container is listed as running for some
milliseconds after its `die` event; what `inspect` says is true.
"""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import docker
from docker.errors import NotFound

from autostart.runtime.base import Endpoint
from autostart.runtime.compose.project import Project, PublishedPort

_LABEL = "com.docker.compose."
_LOOPBACK = "127.0.0.1"
_ANY_ADDRESS = {"": _LOOPBACK, "0.0.0.0": _LOOPBACK, "::": "::1"}


@dataclass(frozen=True, slots=True)
class Container:
    """One container at one moment. `state` is Docker's word (running, paused, exited, created, …)."""

    id: str
    name: str
    service: str
    """Compose's name for it; empty where compose did not make it."""
    state: str
    created_s: float
    started_at_s: float | None
    """When its present run began; None while it does not run."""
    ended_at_s: float | None
    """When its latest run that is over ended; None before the first."""
    exit_code: int | None
    """Of its last run; None while it runs and before the first run."""
    published: tuple[PublishedPort, ...]
    """Its TCP ports on the host; empty while it does not run."""
    addresses: tuple[tuple[str, str], ...]
    """Pairs of its address and the gateway of that network, IPv4 first."""
    project: str = ""
    """Compose's name for the project that it belongs to; empty where compose did not make it."""

    @property
    def is_running(self) -> bool:
        """Say whether its process lives and is not frozen."""
        return self.state == "running"

    @property
    def is_alive(self) -> bool:
        """Say whether there is something to stop: it runs, is frozen, or is about to run again."""
        return self.state in {"running", "paused", "restarting"}

    def answers_to(self, name: str) -> bool:
        """Say whether `name`, as somebody wrote it in `containers`, means this one."""
        return name in {self.name, self.service}


def find_containers(
    client: docker.APIClient, project: Project, names: Sequence[str], known: Iterable[str]
) -> list[Container]:
    """Return the containers of `project`, and those called `names` that compose did not make; blocks.

    One that the project's file names, but another project has, is not its own: it may not even be looked at.

    Those whose ids are `known` are only inspected (1 ms each, where a list looks at all that the engine has).
    Where one of them is gone or they are not all, they are searched for: by the project's name, as compose
    does; by its directory, for a project brought up under another name (`docker compose -p`); by container name.
    """
    found = inspect_containers(client, known)
    if not found or not _covers(found, project, names):
        found = _list(client, f"label={_LABEL}project={project.name}")
    if not _covers(found, project, names):
        ids = {container.id for container in found}
        others = _list(client, f"label={_LABEL}project.working_dir={project.directory}")
        found += [container for container in others if container.id not in ids]
    for name in names:
        if not any(container.answers_to(name) for container in found):
            is_own = project.service_of(name) is not None
            named = _list(client, f"name=^/?{re.escape(name)}$")
            found += [container for container in named if not (is_own and container.project)]
    return found


def _covers(found: Sequence[Container], project: Project, names: Iterable[str]) -> bool:
    services = {container.service for container in found}
    wanted = {service.name for service in project.services.values() if service.is_enabled}
    return wanted <= services and all(any(item.answers_to(name) for item in found) for name in names)


def _list(client: docker.APIClient, selection: str) -> list[Container]:
    kind, _, value = selection.partition("=")
    items = client.containers(all=True, filters={kind: [value]})
    return inspect_containers(
        client,
        (item["Id"] for item in items if (item.get("Labels") or {}).get(f"{_LABEL}oneoff") != "True"),
    )


def inspect_containers(client: docker.APIClient, ids: Iterable[str]) -> list[Container]:
    """Return those with these ids that there still are; blocks."""
    found = []
    for container_id in ids:
        with contextlib.suppress(NotFound):  # removed meanwhile
            found.append(parse_container(client.inspect_container(container_id)))
    return found


def parse_container(raw: dict[str, Any]) -> Container:
    """Return the container that the engine's `inspect` tells."""
    labels = raw["Config"].get("Labels") or {}
    state = raw["State"]
    has_ended = state["Status"] in {"exited", "dead"}
    network_settings = raw.get("NetworkSettings") or {}
    return Container(
        id=raw["Id"],
        name=raw["Name"].lstrip("/"),
        service=labels.get(f"{_LABEL}service", ""),
        project=labels.get(f"{_LABEL}project", ""),
        state=state["Status"],
        exit_code=state["ExitCode"] if has_ended else None,
        created_s=parse_time(raw["Created"]) or 0.0,
        started_at_s=None if has_ended else parse_time(state.get("StartedAt", "")),
        ended_at_s=parse_time(state.get("FinishedAt", "")),
        published=tuple(
            PublishedPort(
                binding.get("HostIp") or "", int(binding["HostPort"]), int(inside.partition("/")[0])
            )
            for inside, bindings in (network_settings.get("Ports") or {}).items()
            for binding in bindings or ()
            if inside.endswith("/tcp")
        ),
        addresses=tuple(
            (network[address], network.get(gateway) or "")
            for address, gateway in (("IPAddress", "Gateway"), ("GlobalIPv6Address", "IPv6Gateway"))
            for network in (network_settings.get("Networks") or {}).values()
            if network and network.get(address)
        ),
    )


def parse_time(text: str) -> float | None:
    """Read the engine's RFC 3339 time with nanoseconds, in UTC, as epoch seconds; None for its zero."""
    if not text or text.startswith("0001"):
        return None
    head, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{head}+00:00").timestamp() + float(f"0.{fraction or 0}")


def find_endpoint(containers: Iterable[Container], port: int) -> Endpoint:
    """Return where the running service behind `port` of this host is reached best.

    That is the container's own address where this host is part of its network, measured at nearly three
    times the requests of docker-proxy (DESIGN.md section 7); else the published port, behind which docker-proxy
    accepts before the service listens.
    """
    for container in containers:
        ways = [published for published in container.published if published.host_port == port]
        if not ways:
            continue
        for address, gateway in container.addresses:
            if _is_direct(address, gateway):
                return Endpoint(address, ways[0].container_port)
        hosts = [_ANY_ADDRESS.get(way.host_ip, way.host_ip) for way in ways]
        return Endpoint(_LOOPBACK if _LOOPBACK in hosts else hosts[0], port, accepts_early=True)
    return Endpoint(_LOOPBACK, port)


def _is_direct(address: str, gateway: str) -> bool:
    """Say whether this host is on the container's own bridge: it would speak to `address` as its gateway.

    Asks the routing table; no packet is sent. False for rootless engines, virtual machines and other hosts.
    """
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return ipaddress.ip_address(probe.getsockname()[0]) == ipaddress.ip_address(gateway)
    except (OSError, ValueError):  # ValueError: it has no gateway, or one with a zone
        return False
