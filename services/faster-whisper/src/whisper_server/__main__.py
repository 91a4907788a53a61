"""Start the server: listen first, load beside, serve.

The order is the point. The socket listens before anything heavy is imported, so a request that arrives during the
start waits in the kernel instead of being refused. The model's libraries come next, so that the model loads (in C++,
in its own thread) while this thread imports the web framework. Measured on 2 cores with whisper-tiny: listening after
0.03 s, ready after 0.8 s.
"""

# ruff: noqa: PLC0415 -- see above: what is imported when is what this module is about

import socket
from typing import TYPE_CHECKING, NoReturn

from speech_common import start

from whisper_server.settings import Settings

if TYPE_CHECKING:
    from speech_common.jobs import Jobs
    from speech_common.loads import LoadTally
    from speech_common.models.registry import Registry
    from starlette.types import ASGIApp

    from whisper_server.model import Model


def main() -> NoReturn:
    """Run until SIGTERM or SIGINT (exit 0), or until the model turns out not to load (exit 3)."""
    settings = start.begin(Settings, chatty=("faster_whisper",))
    listener = start.listen(settings)
    registry, loads = _start_loading(settings)
    start.leave(_serve(settings, registry, loads, listener))


def _start_loading(settings: Settings) -> "tuple[Registry[Model], LoadTally]":
    # In this thread on purpose: imports in two threads at once only take turns, and may deadlock in circles.
    from speech_common.loads import LoadTally
    from speech_common.models.loading import load
    from speech_common.models.registry import Registry

    from whisper_server.model import Model

    registry, loads = Registry(settings, lambda found: load(found, settings, Model)), LoadTally()
    registry.on_load.append(loads.add)
    registry.start_loading()
    return registry, loads


def _serve(
    settings: Settings, registry: "Registry[Model]", loads: "LoadTally", listener: socket.socket
) -> int:
    def make_app(jobs: "Jobs") -> "ASGIApp":
        from whisper_server.api import create_app
        from whisper_server.engine import Engine

        return create_app(settings, registry, Engine(registry, settings), jobs, loads)

    return start.serve(settings, registry, listener, make_app)


if __name__ == "__main__":
    main()
