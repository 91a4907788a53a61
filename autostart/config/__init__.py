"""The configuration: models, and `load(path)` that reads them from JSON or YAML."""

from autostart.config.file import load, parse
from autostart.config.models import Admin, Config, Log, Service
from autostart.config.parts import ApiKey, Auth, ComposeRuntime, Cors, ProcessRuntime, Quiet, Readiness
from autostart.config.values import normalise_host

__all__ = [
    "Admin",
    "ApiKey",
    "Auth",
    "ComposeRuntime",
    "Config",
    "Cors",
    "Log",
    "ProcessRuntime",
    "Quiet",
    "Readiness",
    "Service",
    "load",
    "normalise_host",
    "parse",
]
