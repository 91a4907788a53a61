"""A large upload: how fast it passes, and how much memory that takes.

To a service that is awake, in turn with the same upload directly; and to one that sleeps, where the upload waits
for the start (in a file).
"""

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
    wait_until,
)
from bench.table import Row, median

TITLE = "Upload: 500 MB"

_MEMORY_MB = 60.0


def measure(size_bytes: int = 500_000_000, runs: int = 5, start_s: float = 1.0) -> list[Row]:
    """Return the rows: the medians of `runs` uploads each, and the most memory of all of them.

    `start_s` is how long the service of the second kind takes until it listens.
    """
    with Stand() as stand:
        port, own_port = free_port(), free_port()
        stand.spawn(fast_backend_command(port), core=OTHER_CORE).wait_for_port(port)
        own = pinned(OTHER_CORE, fast_backend_command(own_port, "--delay", str(start_s)))
        gateway = stand.gateway({HOST: process_service(own_port, own)}, core=PROXY_CORE)
        gateway.start()
        gateway.reset_peak()
        before_mb = gateway.rss_bytes / 1e6
        direct_s, through_s = [], []
        for _ in range(runs):
            direct_s.append(client.upload(port, size_bytes))
            through_s.append(client.upload(gateway.port, size_bytes))
        awake_mb, file_mb = gateway.peak_bytes / 1e6, gateway.file_bytes / 1e6

        asleep_s, asleep_mb = [], []
        for _ in range(runs):
            # The lease is given back a moment after the answer's last byte.
            wait_until(lambda: gateway.facts()["in_flight"] == 0, "the end of the upload")
            gateway.stop()
            gateway.reset_peak()
            asleep_s.append(client.upload(gateway.port, size_bytes))
            asleep_mb.append(gateway.peak_bytes / 1e6)

    def rate(times_s: list[float]) -> float:
        return size_bytes / median(times_s) / 1e9

    share = f"{rate(through_s) / rate(direct_s):.2f} of direct"
    memory = f"{before_mb:.1f} MB before; of it libraries on disk: {file_mb:.1f} MB"
    start = f"{median(asleep_s):.2f} s together with a start of {start_s:g} s and more"
    return [
        Row("direct", rate(direct_s), "GB/s"),
        Row("through autostart", rate(through_s), "GB/s", note=share),
        Row("through autostart: peak memory", awake_mb, "MB", _MEMORY_MB, memory),
        Row("to a sleeping service", rate(asleep_s), "GB/s", note=start),
        Row("to a sleeping service: peak memory", max(asleep_mb), "MB", _MEMORY_MB),
    ]
