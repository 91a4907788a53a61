"""What stands behind `autostart check`: the configuration, and whether this machine is as it says.

Owns the comparison of a loaded configuration with files, programs, compose projects and the Docker engine.
Starts nothing and changes nothing. Imports config, htpasswd and runtime; knows neither proxy nor lifecycle.
"""

import asyncio
import ipaddress
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from autostart.config import Auth, Config, ProcessRuntime, Service, load
from autostart.errors import ComposeDirMissing, ConfigError, Problem, RuntimeFailure
from autostart.htpasswd import HtpasswdFile, check_htpasswd
from autostart.runtime.compose import Engine, ProjectReport, inspect_project

_ENGINE_LIMIT_S = 10.0
_LONGEST_SOCKET_PATH_BYTES = 107
"""unix(7): 108 with the zero byte at the end."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. Errors keep something from working; warnings are things that somebody may want so."""

    path: Path
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    @property
    def exit_code(self) -> int:
        """Return 0 where nothing keeps autostart from working, else 2."""
        return 2 if self.errors else 0

    def lines(self) -> list[str]:
        """Return a line for each problem, errors first: `file: where: message (accepted: …)`."""
        return [f"{self.path}: {problem}" for problem in self.errors] + [
            f"{self.path}: warning: {problem}" for problem in self.warnings
        ]


class _Findings:
    """What has been found so far."""

    def __init__(self) -> None:
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def error(self, where: str, message: str, accepted: str = "") -> None:
        self.errors.append(Problem(where, message, accepted))

    def failure(self, where: str, failure: RuntimeFailure) -> None:
        """Take note of what a start would fail of, with what may help."""
        self.error(where, f"{failure}; {failure.hint}" if failure.hint else str(failure))

    def warn(self, where: str, message: str, accepted: str = "") -> None:
        self.warnings.append(Problem(where, message, accepted))


async def check(path: Path, engine: Engine | None = None) -> Report:
    """Look at the configuration in `path` and at this machine; `engine` is the one of DOCKER_HOST if left out.

    Mistakes in the file are told alone: without a configuration there is nothing to compare the machine with.
    Judges rights as the user who asks, so it belongs to be run as the user that runs autostart.
    """
    try:
        config = await asyncio.to_thread(load, path)
    except ConfigError as exc:
        return Report(path, exc.problems)
    found = _Findings()
    _check_directories(config, found)
    _check_listeners(config, found)
    if config.auth is not None:
        _check_auth("auth", config.auth, found)
    for host, service in config.services.items():
        _check_busy(f"services.{host}", service, found)
        if isinstance(service.auth, Auth):
            _check_auth(f"services.{host}.auth", service.auth, found)
        if isinstance(service.runtime, ProcessRuntime):
            _check_process(f"services.{host}.runtime", service.runtime, found)
    composed = {
        host: service for host, service in config.services.items() if service.runtime.kind == "compose"
    }
    if composed:
        await _check_engine(engine or Engine(), found)
        reports = await asyncio.gather(*(_inspect(service) for service in composed.values()))
        for (host, service), report in zip(composed.items(), reports, strict=True):
            _check_project(f"services.{host}", service, report, found)
    return Report(path, tuple(found.errors), tuple(found.warnings))


# --- autostart itself -------------------------------------------------------------------------------


# os.path, where Path raises: what may not be looked at is not there for this user.
_is_directory = os.path.isdir
_is_file = os.path.isfile


def _is_writable(directory: Path) -> bool:
    return os.access(directory, os.W_OK | os.X_OK, effective_ids=True)


def _check_directories(config: Config, found: _Findings) -> None:
    if not _is_directory(config.spool_dir):
        found.error("spoolDir", f"{config.spool_dir} is not a directory", "a directory for waiting uploads")
    elif not _is_writable(config.spool_dir):
        found.error(
            "spoolDir", f"{config.spool_dir} is not writable for this user", "a directory for waiting uploads"
        )
    files = dict(_sockets(config))
    for where, path in files.items():
        if (length := len(os.fsencode(path))) > _LONGEST_SOCKET_PATH_BYTES:
            accepted = f"at most {_LONGEST_SOCKET_PATH_BYTES} bytes"
            found.error(where, f"the path is too long for a socket, {length} bytes", accepted)
    if config.state_file is not None:
        files["stateFile"] = config.state_file
        if _is_directory(config.state_file):
            found.error("stateFile", f"{config.state_file} is a directory", "a file, or null for nowhere")
    for where, file in files.items():
        # systemd makes these (RuntimeDirectory=, StateDirectory=) when it starts the service: no error.
        if not _is_directory(file.parent):
            found.warn(
                where,
                f"the directory {file.parent} is not there yet; systemd or you make it before the start",
            )
        elif not _is_writable(file.parent):
            found.warn(
                where,
                f"the directory {file.parent} is not writable for this user; is it the one that runs autostart?",
            )


def _sockets(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield the unix sockets that autostart makes, with their places in the file."""
    yield "admin.socket", config.admin.socket
    addresses = [(f"listen[{index}]", address) for index, address in enumerate(config.listen)]
    for where, address in [*addresses, ("admin.metrics", config.admin.metrics or "")]:
        if address.startswith("unix:"):
            yield where, Path(address.removeprefix("unix:"))


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    return ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_loopback


def _check_listeners(config: Config, found: _Findings) -> None:
    metrics = config.admin.metrics
    if metrics is not None and not _is_local(metrics):
        found.warn(
            "admin.metrics", f"{metrics} tells the names of all services to whoever reaches it", "127.0.0.1"
        )
    public = [address for address in config.listen if not _is_local(address)]
    if not public:
        return
    for host, service in config.services.items():
        if config.auth_for(service) is None:
            message = f"whoever reaches {', '.join(public)} may use it: it has no authentication"
            found.warn(
                f"services.{host}.auth",
                message,
                "htpasswd or apiKeys here or for all; or listen on 127.0.0.1",
            )


def _check_auth(where: str, auth: Auth, found: _Findings) -> None:
    known = {key.name for key in auth.api_keys}
    allowed = auth.allow or ()
    if auth.htpasswd is not None:
        for problem in check_htpasswd(auth.htpasswd):
            found.error(f"{where}.htpasswd", f"{problem.where}: {problem.message}", problem.accepted)
        users = HtpasswdFile(auth.htpasswd)
        known |= {name for name in allowed if users.find(name) is not None}
    for index, name in enumerate(allowed):
        if name not in known:
            found.warn(
                f"{where}.allow[{index}]",
                f"nobody is called {name!r}",
                "a user of htpasswd or a name in apiKeys",
            )


# --- what runs the services -------------------------------------------------------------------------


def _check_busy(where: str, service: Service, found: _Findings) -> None:
    options = {"busyPath": service.busy_path, "busyCpuPercent": service.busy_cpu_percent}
    if service.idle_timeout == float("inf"):
        for option, value in options.items():
            if value is not None:
                found.warn(f"{where}.{option}", 'means nothing where idleTimeout is "never"')
    most = 100 * (os.cpu_count() or 1)
    if service.busy_cpu_percent is not None and service.busy_cpu_percent >= most:
        message = f"it can never be above {service.busy_cpu_percent:g}: all of this machine's CPU is {most}"
        found.warn(f"{where}.busyCpuPercent", message, "what it uses while it works; 100 is one whole core")


def _check_process(where: str, runtime: ProcessRuntime, found: _Findings) -> None:
    cwd = runtime.cwd or Path.cwd()
    if not _is_directory(cwd):
        found.error(f"{where}.cwd", f"{cwd} is not a directory", "the directory to run the program in")
        return
    program = runtime.command[0]
    if "/" not in program:
        if shutil.which(program, path=runtime.env.get("PATH")) is None:
            message = f"there is no program {program!r} on the PATH"
            found.error(f"{where}.command", message, "a program on the PATH, or its absolute path")
        return
    file = cwd / program
    if not _is_file(file):
        found.error(
            f"{where}.command", f"there is no program {file}", "a program on the PATH, or its absolute path"
        )
    elif not os.access(file, os.X_OK, effective_ids=True):
        found.error(f"{where}.command", f"{file} is not executable for this user", "an executable file")


async def _check_engine(engine: Engine, found: _Findings) -> None:
    try:
        await engine.call("asking the Docker engine", lambda client: client.ping(), limit_s=_ENGINE_LIMIT_S)
    except RuntimeFailure as exc:
        found.failure("", exc)
    finally:
        await engine.close()


async def _inspect(service: Service) -> ProjectReport | RuntimeFailure:
    assert service.compose_dir is not None
    try:
        return await asyncio.to_thread(inspect_project, service.compose_dir)
    except RuntimeFailure as exc:
        return exc
    except OSError as exc:
        return ComposeDirMissing(service.compose_dir, f"it cannot be looked at: {exc.strerror}")


def _check_project(
    where: str, service: Service, report: ProjectReport | RuntimeFailure, found: _Findings
) -> None:
    if isinstance(report, RuntimeFailure):
        found.failure(f"{where}.composeDir", report)
        return
    if report.compose_said:
        found.warn(f"{where}.composeDir", f"compose could not be asked: {report.compose_said}")
    for index, name in enumerate(service.containers):
        if not report.has_container(name):
            there = ", ".join(report.containers)
            found.error(f"{where}.containers[{index}]", f"the compose file has no container {name!r}", there)
    port = service.proxy_port
    if not report.published(port):
        if not _may_be_on_the_host_network(report):
            message = f"no container of {service.compose_dir} publishes the port {port}"
            found.error(f"{where}.proxyPort", message, _published(report) or f'ports: ["127.0.0.1:{port}:…"]')
    elif report.is_published_to_the_world(port):
        message = f"the port {port} is published to the whole network, past autostart and its authentication"
        inside = report.published(port)[0].container_port
        found.warn(f"{where}.proxyPort", message, f'ports: ["127.0.0.1:{port}:{inside}"] in the compose file')


def _published(report: ProjectReport) -> str:
    ports = sorted({port.host_port for service in report.project.services.values() for port in service.ports})
    return ", ".join(str(port) for port in ports)


def _may_be_on_the_host_network(report: ProjectReport) -> bool:
    """Say whether a container shares the host's ports, or may do so in what only compose could have read."""
    return report.project.is_partial or any(
        service.get("network_mode") == "host" for file in report.project.files for service in _services(file)
    )


def _services(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the services of a compose file as they are written, what `<<` merges into them included.

    BaseLoader builds nothing but texts, lists and mappings, and so reads compose's own tags too.
    """
    model = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 - the safest of all
    services = model.get("services") if isinstance(model, dict) else None
    for service in services.values() if isinstance(services, dict) else ():
        if isinstance(service, dict):
            merged = service.get("<<")
            yield (merged if isinstance(merged, dict) else {}) | service
