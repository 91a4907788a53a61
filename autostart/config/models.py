"""What may stand in the configuration: frozen models with meaning, unit and default of every field.

The JSON schema and the reference page are generated from here. Imports `parts` and `values` of ours.
Keys are camelCase in the file and snake_case in Python. Durations are seconds, sizes bytes, once loaded.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from autostart.config.parts import (
    Auth,
    ComposeRuntime,
    Cors,
    Found,
    Misfit,
    Model,
    Quiet,
    Readiness,
    ServiceAuth,
    ServiceRuntime,
)
from autostart.config.values import (
    AbsolutePath,
    Duration,
    FilePath,
    Flag,
    HostName,
    IdleDuration,
    ListenAddress,
    Network,
    Percent,
    Port,
    RootedPath,
    Size,
    normalise_host,
    shown,
)


class Service(Model):
    """One service: a host name, and what to start for it."""

    name: str = Field(default="", description="Name shown to people. Left out: the host name.")
    compose_dir: AbsolutePath | None = Field(
        default=None, description="Directory of the docker-compose project. The compose runtime needs it."
    )
    proxy_port: Port = Field(description="Port on 127.0.0.1 that the service is published on.")
    blocking: Flag | None = Field(
        default=None,
        description="`true`: a request waits until the service is ready. `false`: a browser gets a waiting page, an "
        "API client 503 with Retry-After. Left out: the page for browser navigations, waiting for all else.",
    )
    containers: tuple[str, ...] = Field(
        default=(),
        description="Container names that must run for the service. Left out: all of the project, which it then needs "
        "for itself.",
    )
    aliases: tuple[HostName, ...] = Field(default=(), description="Further host names of the same service.")
    idle_timeout: IdleDuration = Field(
        default=900.0, description='Stopped after this long without use; or `"never"`.'
    )
    busy_path: RootedPath | None = Field(
        default=None,
        description="Path asked with GET, without credentials, while nobody uses it and before an idle stop: 200 with "
        '`{"busy": true}` means that it works on something, which is use; so is any answer but true or false. '
        "Left out: not asked.",
    )
    busy_cpu_percent: Percent | None = Field(
        default=None,
        description="Above this share of CPU it works on something, which is use. All its containers or processes count "
        "together, health checks included; 100 is one whole core. Left out: not looked at.",
    )
    start_timeout: Duration = Field(default=60.0, gt=0, description="How long a start may take until ready.")
    wait_timeout: Duration | None = Field(
        default=None,
        gt=0,
        description="How long one request waits for a start. Left out: as long as the start may take.",
    )
    stop_timeout: Duration = Field(default=10.0, description="Grace between the request to end and the kill.")
    connect_timeout: Duration = Field(
        default=5.0, gt=0, description="How long connecting to the ready service may take."
    )
    response_timeout: Duration = Field(
        default=3600.0, gt=0, description="How long the service may be silent before its answer begins."
    )
    body_timeout: Duration = Field(
        default=300.0,
        gt=0,
        description="How long a client may pause in its request body, once the service takes it.",
    )
    stop_method: Literal["stop", "pause"] = Field(
        default="stop",
        description="`pause` freezes the containers: awake in milliseconds, but their memory stays taken.",
    )
    readiness: Readiness = Field(default=Readiness(), description="When a started service counts as ready.")
    max_body_size: Size = Field(default=500_000_000, description="Largest request body let through.")
    auth: ServiceAuth | None = Field(
        default=None, description='Who may use it. Left out: the global `auth`. `"none"`: everyone.'
    )
    cors: Cors | None = Field(
        default=None, description="Cross-origin use by web pages. Left out: the service's own affair."
    )
    quiet: Quiet = Field(default=Quiet(), description="Traffic that never wakes it and never counts as use.")
    failure_details: Literal["none", "cause", "log"] | None = Field(
        default=None,
        description="What a caller is told of a failed start: nothing but the fact, the cause, or the cause and the last "
        "log lines. Left out: `log` where auth is required, else `cause`.",
    )
    runtime: ServiceRuntime = Field(
        default=ComposeRuntime(),
        description="What runs the service. Left out: docker-compose, in `composeDir`.",
    )

    @model_validator(mode="after")
    def _runtime_has_its_fields(self) -> "Service":
        found: list[Found] = []
        if self.runtime.kind == "compose":
            if self.compose_dir is None:
                found.append((("composeDir",), "is missing", "the absolute path of a docker-compose project"))
        else:
            stray = [
                key
                for key, value in (("composeDir", self.compose_dir), ("containers", self.containers))
                if value
            ]
            found += [((key,), "means nothing to the process runtime", "") for key in stray]
            if self.stop_method == "pause":
                found.append((("stopMethod",), '"pause" needs the compose runtime', '"stop"'))
        if found:
            raise Misfit(*found)
        return self


class Admin(Model):
    """Where autostart itself is reached."""

    socket: FilePath = Field(
        default=Path("/run/autostart/admin.sock"),
        description="Unix socket of the local API behind the command line; whoever may open it may start and stop.",
    )
    metrics: ListenAddress | None = Field(
        default="127.0.0.1:8891", description="Where Prometheus finds `/metrics`; `null` for nowhere."
    )


class Log(Model):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    requests: Flag = Field(default=True, description="One line for each request.")


class Config(Model):
    """The services of this machine, and how autostart itself runs."""

    services: dict[HostName, Service] = Field(description="Services by host name.")
    listen: tuple[ListenAddress, ...] = Field(
        default=("127.0.0.1:8890",),
        min_length=1,
        description="Addresses to serve on. Sockets handed over by systemd take their place.",
    )
    admin: Admin = Field(default=Admin(), description="Where autostart itself is reached.")
    auth: Auth | None = Field(
        default=None, description="Who may use the services. Left out: everyone who reaches them."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=("127.0.0.0/8", "::1/128", "unix"),
        description="Peers whose X-Forwarded-* and X-Request-Id are believed.",
    )
    state_file: FilePath | None = Field(
        default=Path("/var/lib/autostart/state.json"),
        description="Keeps idle clocks and holds over restarts; `null` for nowhere.",
    )
    header_timeout: Duration = Field(
        default=30.0, gt=0, description="How long a client may take for the headers of a request."
    )
    keep_alive_timeout: Duration = Field(
        default=600.0,
        gt=0,
        description="How long a connection may be idle between requests; longer than the proxy in front keeps it.",
    )
    drain_timeout: Duration = Field(
        default=30.0, description="How long open requests may go on when autostart stops."
    )
    spool_dir: FilePath = Field(
        default=Path("/var/tmp"),  # noqa: S108 - files without a name are made there
        description="Where uploads wait, as files without a name, while their service starts.",
    )
    spool_size: Size = Field(
        default=4 * 2**30, description="Most bytes that waiting uploads may take there together."
    )
    log: Log = Field(default=Log(), description="What is logged.")

    @field_validator("services", mode="before")
    @classmethod
    def _no_host_stands_twice(cls, value: Any) -> Any:
        """Find hosts that differ in case or a final dot only: as keys they would silently replace each other."""
        if isinstance(value, dict):
            seen: dict[str, Any] = {}
            for host in value:
                name = normalise_host(host) if isinstance(host, str) else host
                if name in seen:
                    raise Misfit(((host,), f"is the same host as {shown(seen[name])}", "each host once"))
                seen[name] = host
        return value

    @model_validator(mode="after")
    def _names_and_ports_are_one_service_each(self) -> "Config":
        shared = (
            self._shared_names(),
            self._shared_addresses(),
            self._shared_ports(),
            self._shared_projects(),
        )
        if found := [mistake for mistakes in shared for mistake in mistakes]:
            raise Misfit(*found)
        return self

    def _shared_names(self) -> Iterator[Found]:
        owners = {host: host for host in self.services}
        for host, service in self.services.items():
            for index, alias in enumerate(service.aliases):
                where = ("services", host, "aliases", index)
                if alias in owners:
                    yield where, f"{shown(alias)} is already a name of {owners[alias]}", "each name once"
                owners.setdefault(alias, host)

    def _shared_addresses(self) -> Iterator[Found]:
        """Find addresses of our own given twice: the later of two unix sockets would take the earlier one's place."""
        seen = {f"unix:{self.admin.socket}"}
        own: list[tuple[tuple[str | int, ...], str]] = [
            (("listen", index), address) for index, address in enumerate(self.listen)
        ]
        if self.admin.metrics is not None:
            own.append((("admin", "metrics"), self.admin.metrics))
        for where, address in own:
            if address in seen and not address.endswith(":0"):  # 0 is any free port
                yield (
                    where,
                    f"{shown(address)} is already an address of autostart itself",
                    "each address once",
                )
            seen.add(address)

    def _shared_ports(self) -> Iterator[Found]:
        metrics = () if self.admin.metrics is None else (self.admin.metrics,)
        owners = {
            int(address.rpartition(":")[2]): "autostart itself"
            for address in (*self.listen, *metrics)
            if not address.startswith("unix:")
        }
        for host, service in self.services.items():
            where = ("services", host, "proxyPort")
            if service.proxy_port in owners:
                yield (
                    where,
                    f"{service.proxy_port} is already the port of {owners[service.proxy_port]}",
                    "each port once",
                )
            owners.setdefault(service.proxy_port, host)

    def _shared_projects(self) -> Iterator[Found]:
        """Find services that would stop all of a project which another service has a part of."""
        for host, service in self.services.items():
            if service.compose_dir is None or service.containers:
                continue
            others = (
                other
                for other, its in self.services.items()
                if other != host and its.compose_dir == service.compose_dir
            )
            if (other := next(others, None)) is not None:
                where = ("services", host, "containers")
                yield where, f"is missing: {other} has the same composeDir", "the containers of each service"

    def auth_for(self, service: Service) -> Auth | None:
        """Return the rules that hold for `service`, None where everyone is let in."""
        if service.auth == "none":
            return None
        return service.auth or self.auth
