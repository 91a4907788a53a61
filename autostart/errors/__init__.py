"""Everything that can go wrong, as one tree of exceptions that carry facts.

Owns the vocabulary of failure. Imports nothing of ours, logs nothing and knows neither HTTP nor Docker:
`proxy/replies.py` is the one table that turns these into status and body.

    AutostartError              root.py
    ├── ConfigError             configuration.py   the configuration is broken
    ├── RuntimeFailure          failures.py        a runtime could not do what it was asked (knows no service)
    ├── RequestRefused          answers.py         the request itself is not let in
    └── ServiceUnavailable      answers.py         the request is fine, its service is not (yet) there
"""

from autostart.errors.answers import (
    Asleep,
    BadRequest,
    BodyTimeout,
    BodyTooLarge,
    Forbidden,
    HeadersTooLarge,
    HeaderTimeout,
    InUse,
    RequestRefused,
    ServiceUnavailable,
    ShuttingDown,
    StartFailed,
    StartHeldOff,
    Starting,
    StartTimeout,
    Unauthorized,
    UnknownHost,
    UpstreamFailed,
    UpstreamTimeout,
)
from autostart.errors.configuration import ConfigError, Problem
from autostart.errors.failures import (
    BusyUnknown,
    CommandFailed,
    CommandNotFound,
    ComposeDirMissing,
    ComposeFileInvalid,
    ContainerUnknown,
    EngineForbidden,
    EngineUnreachable,
    Exited,
    FailureCause,
    ImageMissing,
    InternalFailure,
    OutOfMemory,
    PortTaken,
    RuntimeFailure,
    StopFailed,
    StoppedByHand,
    TimedOut,
    Unhealthy,
)
from autostart.errors.root import AutostartError

__all__ = [
    "Asleep",
    "AutostartError",
    "BadRequest",
    "BodyTimeout",
    "BodyTooLarge",
    "BusyUnknown",
    "CommandFailed",
    "CommandNotFound",
    "ComposeDirMissing",
    "ComposeFileInvalid",
    "ConfigError",
    "ContainerUnknown",
    "EngineForbidden",
    "EngineUnreachable",
    "Exited",
    "FailureCause",
    "Forbidden",
    "HeaderTimeout",
    "HeadersTooLarge",
    "ImageMissing",
    "InUse",
    "InternalFailure",
    "OutOfMemory",
    "PortTaken",
    "Problem",
    "RequestRefused",
    "RuntimeFailure",
    "ServiceUnavailable",
    "ShuttingDown",
    "StartFailed",
    "StartHeldOff",
    "StartTimeout",
    "Starting",
    "StopFailed",
    "StoppedByHand",
    "TimedOut",
    "Unauthorized",
    "Unhealthy",
    "UnknownHost",
    "UpstreamFailed",
    "UpstreamTimeout",
]
