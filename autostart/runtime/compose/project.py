"""What a compose file says, read without Docker: services, container names, ports, order.

Owns the reading of compose files, as far as starting and stopping needs it. What it leaves to compose
itself (`include`, `extends`) it says in `Project.is_partial`. Imports nothing of Docker.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from autostart.errors import ComposeDirMissing, ComposeFileInvalid
from autostart.runtime.compose.files import load, merge, named_files
from autostart.runtime.compose.variables import read_env_file

_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
"""In the order in which `docker compose` v2 looks for them."""
_OVERRIDES = tuple(
    f"{name}.override.{ending}" for name in ("compose", "docker-compose") for ending in ("yml", "yaml")
)


class Condition(StrEnum):
    """What a dependency must have reached before its dependent is started."""

    STARTED = "service_started"
    HEALTHY = "service_healthy"
    COMPLETED = "service_completed_successfully"


@dataclass(frozen=True, slots=True)
class Dependency:
    """`required` is false where the dependent starts even if the dependency is missing or fails."""

    condition: Condition = Condition.STARTED
    required: bool = True


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of the host that leads into a container; `host_ip` is empty for all addresses."""

    host_ip: str
    host_port: int
    container_port: int


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    """One entry of `services`. `container_name` is empty where compose makes the name up."""

    name: str
    container_name: str
    image: str
    is_built: bool
    is_enabled: bool
    """False for a profile that is not active and for `scale: 0`."""
    ports: tuple[PublishedPort, ...]
    dependencies: Mapping[str, Dependency]


FileStamp = tuple[tuple[str, int, int, int], ...]
"""Path, change times in ns and size of each file that the project is made of; −1 where there is none."""


@dataclass(frozen=True, slots=True)
class Project:
    """A compose project as its files describe it."""

    directory: Path
    name: str
    files: tuple[Path, ...]
    services: Mapping[str, ServiceDefinition]
    stamp: FileStamp
    is_partial: bool = False
    """True where `include` or `extends` hide services or dependencies from us: ask compose."""
    watched: tuple[Path, ...] = field(default=())
    """Every file that can change a container: compose files, also those not there yet or that others name, .env,
    env_file."""

    @property
    def changed_at_s(self) -> float:
        """Return when any of its files last changed (content, name or rights), in epoch seconds."""
        return max((max(mtime, ctime) for _, mtime, ctime, _ in self.stamp), default=0) / 1e9

    @property
    def one_shots(self) -> frozenset[str]:
        """Return the services that others wait for to *end*: they are not expected to run."""
        return frozenset(
            name
            for service in self.services.values()
            for name, dependency in service.dependencies.items()
            if dependency.condition is Condition.COMPLETED
        )

    def container_names(self, service: str) -> tuple[str, ...]:
        """Return the names that a container of `service` may have (compose v2 and v1 join differently)."""
        explicit = self.services[service].container_name
        return (explicit,) if explicit else (f"{self.name}-{service}-1", f"{self.name}_{service}_1")

    def service_of(self, container: str) -> str | None:
        """Return the service that `container` names: by its container's name, else by its own."""
        for service in self.services:
            if container in self.container_names(service):
                return service
        return container if container in self.services else None


def stamp_files(paths: tuple[Path, ...]) -> FileStamp:
    """Return what tells one version of these files from another, without reading them."""
    stamps = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            stamps.append((str(path), -1, -1, -1))
        else:
            stamps.append((str(path), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size))
    return tuple(stamps)


def read_project(directory: Path, environ: Mapping[str, str] = os.environ) -> Project:
    """Read the compose project in `directory`.

    `environ` is where variables come from, before the project's own `.env`, as with compose.
    Raises ComposeDirMissing, ComposeFileInvalid.
    """
    try:
        if not stat.S_ISDIR(directory.stat().st_mode):
            raise ComposeDirMissing(directory, "it is not a directory")
    except FileNotFoundError as exc:
        raise ComposeDirMissing(directory) from exc
    except OSError as exc:
        raise ComposeDirMissing(directory, exc.strerror or str(exc)) from exc
    variables = read_env_file(directory / ".env") | dict(environ)
    files = _find_files(directory, variables)
    model: dict[str, Any] = {}
    for path in files:
        model = merge(model, load(path, variables))
    return build_project(directory, files, model, variables)


def guess_project(directory: Path) -> Project:
    """Return what can be said of a project whose files cannot be read: its name, most likely."""
    return Project(directory, _normalise(directory.resolve().name), (), {}, ())


def build_project(
    directory: Path, files: tuple[Path, ...], model: dict[str, Any], variables: Mapping[str, str] = os.environ
) -> Project:
    """Make a Project of a parsed compose `model`, ours or what `compose config` printed.

    Raises ComposeFileInvalid.
    """
    raw_services = model.get("services")
    if not isinstance(raw_services, dict) or not raw_services:
        raise ComposeFileInvalid(files[0], "it has no services")
    profiles = {name for name in variables.get("COMPOSE_PROFILES", "").split(",") if name}
    services = {}
    possible = (directory / name for name in (*_FILES, *_OVERRIDES, ".env"))
    watched = [*files, *possible, *named_files(directory, model, variables)]
    is_partial = bool(model.get("include"))
    for name, raw in raw_services.items():
        if not isinstance(raw, dict):
            raise ComposeFileInvalid(files[0], f"services.{name} must be a mapping")
        try:
            services[name] = _service(name, raw, profiles)
        except (TypeError, ValueError, AttributeError, KeyError) as exc:
            raise ComposeFileInvalid(files[0], f"services.{name}: {exc}") from exc
        is_partial = is_partial or "extends" in raw
    for service in services.values():
        for other, dependency in service.dependencies.items():
            if other not in services and dependency.required and not is_partial:
                raise ComposeFileInvalid(
                    files[0], f"services.{service.name} depends on {other}, which is not there"
                )
    declared = variables.get("COMPOSE_PROJECT_NAME") or model.get("name") or ""
    paths = tuple(dict.fromkeys(watched))
    return Project(
        directory=directory,
        name=_normalise(str(declared or directory.resolve().name)),
        files=files,
        services=services,
        stamp=stamp_files(paths),
        is_partial=is_partial,
        watched=paths,
    )


def _normalise(name: str) -> str:
    return re.sub(r"[^-_a-z0-9]", "", name.lower()).lstrip("_-")


def _find_files(directory: Path, variables: Mapping[str, str]) -> tuple[Path, ...]:
    if named := variables.get("COMPOSE_FILE"):
        separator = variables.get("COMPOSE_PATH_SEPARATOR", os.pathsep)
        files = tuple(directory / name for name in named.split(separator))
        for path in files:
            if not path.is_file():
                raise ComposeFileInvalid(path, "COMPOSE_FILE names it, and it is not there")
        return files
    for name in _FILES:
        if (directory / name).is_file():
            overrides = [directory / other for other in _OVERRIDES if (directory / other).is_file()]
            return (directory / name, *overrides[:1])
    raise ComposeDirMissing(directory, f"it holds no compose file ({', '.join(_FILES)})")


def _service(name: str, raw: dict[str, Any], profiles: set[str]) -> ServiceDefinition:
    replicas = (raw.get("deploy") or {}).get("replicas", raw.get("scale", 1))
    needed = set(raw.get("profiles") or ())
    return ServiceDefinition(
        name=name,
        container_name=str(raw.get("container_name") or ""),
        image=str(raw.get("image") or ""),
        is_built="build" in raw,
        is_enabled=int(1 if replicas is None else replicas) > 0
        and (not needed or "*" in profiles or bool(needed & profiles)),
        ports=tuple(port for entry in raw.get("ports") or () for port in _ports(entry)),
        dependencies=_dependencies(raw),
    )


def _dependencies(raw: dict[str, Any]) -> dict[str, Dependency]:
    found = {}
    for entry in (*(raw.get("links") or ()), *(raw.get("volumes_from") or ())):
        if not str(entry).startswith("container:"):
            found[str(entry).partition(":")[0]] = Dependency()
    for key in ("network_mode", "ipc", "pid"):
        kind, _, other = str(raw.get(key) or "").partition(":")
        if kind == "service":
            found[other] = Dependency()
    depends_on = raw.get("depends_on") or {}
    if isinstance(depends_on, list):
        return found | {name: Dependency() for name in depends_on}
    for name, rule in ((name, rule or {}) for name, rule in depends_on.items()):
        found[name] = Dependency(
            Condition(rule.get("condition", Condition.STARTED)), rule.get("required", True)
        )
    return found


def _ports(entry: Any) -> Iterator[PublishedPort]:
    """Yield the published TCP ports of one entry of `ports`, short or long; a range yields each of its."""
    if isinstance(entry, dict):
        host_ip, published, target = entry.get("host_ip") or "", entry.get("published"), entry["target"]
        protocol = entry.get("protocol") or "tcp"
    else:
        text, _, protocol = str(entry).partition("/")
        rest, _, target = text.rpartition(":")
        host_ip, _, published = rest.rpartition(":")
        host_ip = host_ip.strip("[]")
    if protocol not in ("", "tcp") or not published:
        return
    outside, inside = _range(published), _range(target)
    for offset, port in enumerate(outside):
        yield PublishedPort(host_ip, port, inside[min(offset, len(inside) - 1)])


def _range(text: object) -> range:
    first, _, last = str(text).partition("-")
    return range(int(first), int(last or first) + 1)
