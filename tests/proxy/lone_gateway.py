"""A gateway alone in a process, so that its memory can be measured: `lone_gateway.py SERVICE_PORT SPOOL_DIR`.

Prints its port. Its service "starts" when a line comes on stdin, and is then at SERVICE_PORT.
"""

import asyncio
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from autostart.config import Service as ServiceConfig
from autostart.lifecycle import Service
from autostart.proxy import Proxy, Route
from autostart.proxy.server import Patience
from autostart.runtime.base import Endpoint, Observation, RunState


class ElsewhereRuntime:
    def __init__(self, port: int) -> None:
        self.endpoint = Endpoint("127.0.0.1", port)
        self.begun = asyncio.Event()

    def watch(self, listener) -> None:
        pass

    async def observe(self) -> Observation:
        return Observation(RunState.STOPPED)

    async def start(self) -> Endpoint:
        await self.begun.wait()
        return self.endpoint

    async def stop(self, method, grace_s) -> None:
        pass

    async def check_health(self) -> None:
        return None

    async def log_tail(self, lines: int) -> list[str]:
        return []

    async def close(self) -> None:
        pass


async def main(service_port: int, spool_dir: Path) -> None:
    runtime = ElsewhereRuntime(service_port)
    options = {"proxyPort": 1, "runtime": {"kind": "process", "command": ["x"]}, "maxBodySize": "2GB"}
    config = ServiceConfig.model_validate(options | {"startTimeout": 600})
    service = Service("s.example.org", config, runtime, emit=lambda event: None)
    proxy = Proxy(
        {"s.example.org": Route(service, None)},
        trusted_proxies=["127.0.0.0/8"],
        spool_dir=spool_dir,
        spool_size=2**33,
        patience=Patience(header_s=30.0, keep_alive_s=600.0),
        emit=lambda event: None,
    )
    runner = proxy.runner()
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    loop = asyncio.get_running_loop()
    loop.add_reader(
        sys.stdin, lambda: (sys.stdin.readline(), runtime.begun.set(), loop.remove_reader(sys.stdin))
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), Path(sys.argv[2])))
