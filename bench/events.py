"""A stream of events to one client: how late each event is, directly and through autostart, in turn."""

from bench import client
from bench.stand import (
    HOST,
    OTHER_CORE,
    PROXY_CORE,
    Stand,
    fast_backend_command,
    free_port,
    pinned,
    process_service,
)
from bench.table import Row, median, percentile

TITLE = "Events: a stream of one small event each 5 ms"

_LIMIT_MS = 20.0


def measure(rounds: int = 5) -> list[Row]:
    """Return the rows; a round is one stream each way."""
    with Stand() as stand:
        port = free_port()
        service = process_service(port, pinned(OTHER_CORE, fast_backend_command(port)))
        gateway = stand.gateway({HOST: service}, core=PROXY_CORE)
        gateway.start()
        direct_ms: list[float] = []
        through_ms: list[float] = []
        for _ in range(rounds):
            direct_ms += [took_s * 1000 for took_s in client.events(port)]
            through_ms += [took_s * 1000 for took_s in client.events(gateway.port)]
    added_ms = max(0.0, median(through_ms) - median(direct_ms))
    return [
        Row("added to an event, p50", added_ms, "ms", _LIMIT_MS, f"{len(through_ms):,} events"),
        *(
            Row(
                f"through autostart: {name}",
                percentile(through_ms, share),
                "ms",
                _LIMIT_MS,
                f"directly {percentile(direct_ms, share):.3g} ms",
            )
            for name, share in (("p50", 0.5), ("p99", 0.99), ("the latest of all", 1.0))
        ),
    ]
