"""The process: settings, the port, then everything else, in the order that answers first.

The port listens before the libraries are imported, which takes seconds: who connects meanwhile waits in the kernel's
queue, and then for the model.
"""

# ruff: noqa: PLC0415 -- see above

import os
import socket
from typing import TYPE_CHECKING, Any, NoReturn

from speech_common import start

from whisperx_server.settings import Settings

if TYPE_CHECKING:
    from speech_common.jobs import Jobs
    from speech_common.models.checkpoint import Checkpoint
    from starlette.types import ASGIApp


def main() -> NoReturn:
    """Run until SIGTERM or SIGINT (exit 0), or until the model turns out not to load (exit 3)."""
    # Before anything of theirs is imported: nobody else is told what is done here.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
    # HF_TOKEN is for pyannote, which is given it. With a wrong one the hub would refuse what is everybody's, too.
    os.environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    settings = start.begin(Settings, chatty=("faster_whisper", "whisperx", "pyannote", "torio"))
    # What torch and the BLAS libraries take, in every thread; the decoder is told on its own.
    os.environ["OMP_NUM_THREADS"] = str(settings.threads_per_worker)
    listener = start.listen(settings)
    start.leave(_serve(settings, listener))


def _serve(settings: Settings, listener: socket.socket) -> int:
    from speech_common.loads import LoadTally
    from speech_common.models.registry import Registry

    from whisperx_server.parts import TorchParts

    def load(found: "Checkpoint") -> Any:
        from speech_common.models.loading import load

        from whisperx_server.asr import Model

        return load(found, settings, Model)

    registry, loads = Registry[Any](settings, load), LoadTally()
    registry.on_load.append(loads.add)

    def make_app(jobs: "Jobs") -> "ASGIApp":
        from whisperx_server.api import create_app
        from whisperx_server.engine import Engine

        app = create_app(settings, registry, Engine(registry, settings, TorchParts(settings)), jobs, loads)
        # Not before all this is imported: imports in two threads at once only take turns, and may deadlock in circles.
        registry.start_loading()
        return app

    return start.serve(settings, registry, listener, make_app)


if __name__ == "__main__":
    main()
