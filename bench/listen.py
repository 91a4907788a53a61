"""From the start of the speech server's process until it listens, and until it can transcribe."""

import time
from collections.abc import Sequence

from bench.stand import Stand
from bench.table import Row, median
from bench.whisper import SIZES, Server, models

TITLE = "Speech server: start"

_LISTENING_S, _READY_S = 0.6, 1.2


def measure(runs: int = 9, sizes: Sequence[str] = SIZES) -> list[Row]:
    """Return the rows for models of `sizes`; medians of `runs` starts, after one that is not counted.

    Raises Missing without a model.
    """
    rows = []
    with Stand() as stand:
        for name, model in models(stand, sizes).items():
            found = [_start(stand, model) for _ in range(runs + 1)][1:]
            listening_s, ready_s = ([run[column] for run in found] for column in (0, 1))
            limit_s = _READY_S if name == "tiny" else None
            rows += [
                Row(
                    f"{name}: listening",
                    median(listening_s),
                    "s",
                    _LISTENING_S,
                    f"slowest {max(listening_s):.2f} s",
                ),
                Row(f"{name}: ready", median(ready_s), "s", limit_s, f"slowest {max(ready_s):.2f} s"),
            ]
    return rows


def _start(stand: Stand, model: str) -> tuple[float, float]:
    server = Server(stand, model)
    server.process.wait_for_port(server.port)
    listening_s = time.monotonic() - server.begun
    server.wait_until_ready()
    ready_s = time.monotonic() - server.begun
    server.process.end()
    return listening_s, ready_s
