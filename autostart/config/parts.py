"""The parts of a service's configuration: who may use it, when it is ready, what is quiet, what runs it.

Imports `values` and nothing else of ours; `models` puts the parts together.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from autostart.config.values import (
    Duration,
    FilePath,
    Flag,
    HeaderName,
    KeyHash,
    Method,
    Origin,
    PathPattern,
    RootedPath,
    Statuses,
    Words,
)

Found = tuple[tuple[str | int, ...], str, str]
"""One mistake: the keys that lead to it from the model that found it, the message, and what is accepted."""


class Misfit(ValueError):
    """Values that are fine by themselves do not go together."""

    def __init__(self, *found: Found) -> None:
        self.found = found
        super().__init__("; ".join(message for _, message, _ in found))


class Model(BaseModel):
    """Base of every model here: frozen, no unknown keys, camelCase in the file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class ApiKey(Model):
    """One API key; only its hash is kept."""

    name: str = Field(min_length=1, description="Who holds the key; shown in logs and used in `allow`.")
    hash: KeyHash = Field(repr=False, description="What `autostart hash-key` printed.")


class Auth(Model):
    """Who may use a service: Basic auth from an htpasswd file, Bearer API keys, or both."""

    htpasswd: FilePath | None = Field(
        default=None, description="htpasswd file (bcrypt, SHA or apr1). Read again when it changes."
    )
    api_keys: tuple[ApiKey, ...] = Field(
        default=(), description="API keys accepted as `Authorization: Bearer …`."
    )
    realm: str = Field(default="autostart", description="Realm shown in the browser's password dialog.")
    allow: tuple[str, ...] | None = Field(
        default=None, description="User and key names let in. Left out: everyone with valid credentials."
    )
    forward_credentials: Flag = Field(
        default=False, description="Send the caller's Authorization header on to the service."
    )

    @field_validator("realm")
    @classmethod
    def _realm_fits_into_a_header(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("holds a line break or another control character")
        return value

    @model_validator(mode="after")
    def _has_a_way_in(self) -> "Auth":
        if self.htpasswd is None and not self.api_keys:
            raise ValueError("nobody could log in: it needs htpasswd, apiKeys or both")
        return self


class Readiness(Model):
    """When a started service counts as ready."""

    path: RootedPath | None = Field(
        default=None,
        description="Path asked with GET until an accepted status comes. Left out: the container's own health check "
        "where it has one, else a connection to the port.",
    )
    statuses: tuple[Statuses, ...] = Field(
        default=("200-299",),
        min_length=1,
        description='Statuses of `path` that mean ready: "200", "200-299".',
    )
    attempt_timeout: Duration = Field(default=2.0, gt=0, description="How long one attempt may take.")
    health_check: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="The container's own health check: `auto` asks it where no path is given, `always` also beside "
        "the path, `never` not at all.",
    )

    def accepts(self, status: int) -> bool:
        """Say whether this HTTP status of the readiness path means ready."""
        return any(
            int(low) <= status <= int(high or low)
            for low, _, high in (item.partition("-") for item in self.statuses)
        )


class Cors(Model):
    """Preflights are answered by the gateway, without waking the service."""

    origins: tuple[Origin, ...] = Field(
        min_length=1, description='Origins let in, `"https://app.example.org"` or `"*"`.'
    )
    headers: tuple[HeaderName, ...] = Field(
        default=("authorization", "content-type"),
        description="Request headers let in beside the simple ones.",
    )
    methods: tuple[Method, ...] = Field(
        default=("GET", "POST", "PUT", "PATCH", "DELETE"), description="Methods let in."
    )
    credentials: Flag = Field(
        default=False, description="Let the browser send cookies and stored credentials."
    )
    max_age: Duration = Field(default=600.0, description="How long a browser may remember the answer.")


_ICONS_AND_HEALTH = (
    "/favicon.ico",
    "/robots.txt",
    "/apple-touch-icon*.png",
    "/.well-known/*",
    "/health/*",
    "/healthz",
    "/livez",
    "/readyz",
    "/-/healthy",
    "/-/ready",
)

_MONITORS_AND_CRAWLERS = (
    "*uptimerobot*",
    "uptime-kuma*",
    "*pingdom*",
    "*statuscake*",
    "better uptime*",
    "*site24x7*",
    "*hetrixtools*",
    "blackbox exporter*",
    "blackbox-exporter*",
    "prometheus/*",
    "kube-probe/*",
    "elb-healthchecker/*",
    "googlehc/*",
    "check_http/*",
    "*googlebot*",
    "*bingbot*",
    "*censysinspect*",
    "*zgrab*",
)


class Quiet(Model):
    """Traffic that never wakes a service and never counts as use of it."""

    paths: tuple[PathPattern, ...] = Field(
        default=_ICONS_AND_HEALTH,
        description="Paths, with shell wildcards. `/health` itself wakes: programs ask for it before they send work.",
    )
    methods: tuple[Method, ...] = Field(default=("OPTIONS", "TRACE"), description="Methods.")
    user_agents: tuple[str, ...] = Field(
        default=_MONITORS_AND_CRAWLERS, description="User agents, with shell wildcards, any case."
    )
    monitor_path: RootedPath | None = Field(
        default=None,
        description="Path that is answered with status 200 and `asleep` while the service sleeps, so that a monitor which "
        "asks for it does not report it as down; 503 once a start has failed. A ready service answers it itself. "
        "Left out: none.",
    )


class ComposeRuntime(Model):
    """The service is a docker-compose project in `composeDir`."""

    kind: Literal["compose"] = Field(default="compose", description="Left out: this runtime.")


class ProcessRuntime(Model):
    """The service is a process of autostart's own: no Docker, ended together with autostart."""

    kind: Literal["process"] = Field(description="Says that the service is a process.")
    command: tuple[str, ...] = Field(min_length=1, description="Program and arguments; no shell is involved.")
    cwd: FilePath | None = Field(
        default=None,
        description="Working directory. Left out: the configuration's own directory.",
        validate_default=True,
    )
    env: dict[str, str] = Field(
        default={}, repr=False, description="Variables added to autostart's own environment."
    )

    @field_validator("env")
    @classmethod
    def _names_are_names(cls, value: dict[str, str]) -> dict[str, str]:
        if any(not name or "=" in name for name in value):  # never repeated: what follows "=" may be secret
            raise Misfit(((), 'the name of a variable is empty or holds "="', '{"NAME": "value"}'))
        return value

    @field_validator("cwd", mode="before")
    @classmethod
    def _cwd_is_the_files_directory(cls, value: Any, info: ValidationInfo) -> Any:
        return info.context["directory"] if value is None and info.context else value


def _auth_form(value: Any) -> str:
    return "object" if isinstance(value, dict | Auth) else "none"


def _runtime_form(value: Any) -> str | None:
    """Name the runtime of the value; None where its `kind` is unknown. Without a `kind` it is compose."""
    if isinstance(value, dict):
        kind = value.get("kind", "process" if "command" in value else "compose")
        return kind if kind in ("compose", "process") else None
    return value.kind if isinstance(value, ComposeRuntime | ProcessRuntime) else "compose"


# The branches are chosen by what stands there, so that a mistake is told for the branch that was meant.
ServiceAuth = Annotated[
    Annotated[Auth, Tag("object")] | Annotated[Literal["none"], Tag("none")], Discriminator(_auth_form)
]
ServiceRuntime = Annotated[
    Annotated[ComposeRuntime, Tag("compose")] | Annotated[ProcessRuntime, Tag("process")],
    Discriminator(_runtime_form),
    Words('an object whose kind is "compose" or "process"'),
]
