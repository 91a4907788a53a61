"""The compose runtime: a docker-compose project that can be started, stopped and looked at.

Owns everything that knows Docker: only the modules of this package import `docker` or run its commands.
They may import `autostart.errors` and `autostart.runtime.base`, and know nothing of services or requests.

    project.py     what a compose file says, read without Docker; files.py: compose files and which others they name
    order.py       which services wait for which
    scope.py       which of a project's containers are meant
    containers.py  containers as the engine lists them, and their addresses
    view.py        a project's files and containers, looked at together
    engine.py      the connection to the engine; threads.py: one thread a call
    events.py      the engine's events, one reader for all; watch.py: what they mean for one project
    silence.py     whether the events still come
    inspection.py  single questions about one container
    actions.py     starting, stopping and waiting for single containers; sequence.py: a start, in order
    command.py     `docker compose`, or else `docker-compose`; creation.py: when it is called
    failures.py    what the engine and compose say, as exceptions of ours
    runtime.py     the Runtime of one project
    check.py       a project for `autostart check`, without an engine
"""

from autostart.runtime.compose.check import ProjectReport, inspect_project
from autostart.runtime.compose.command import ComposeCommand
from autostart.runtime.compose.engine import Engine
from autostart.runtime.compose.runtime import ComposeRuntime

__all__ = ["ComposeCommand", "ComposeRuntime", "Engine", "ProjectReport", "inspect_project"]
