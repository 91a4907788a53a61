"""Promises 1 and 2 on a real process: requests come and go in any order while the reaper never rests."""

import asyncio
import random
import sys

from processes import free_port

from autostart.config import Service as ServiceConfig
from autostart.lifecycle import Service, events
from autostart.lifecycle.reaper import reap
from autostart.runtime.process import ProcessRuntime

REQUESTS = 500
CALLERS = 25
SERVER = """
import select, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"whole" if connection.recv(3) == b"ask" else b"")
    connection.close()
"""


class Campaign:
    """Callers that ask one service, and what became of their requests."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.cut: list[str] = []
        self.left = 0
        self.stops = 0
        self.overlaps: list[str] = []
        self.service = self._make_service()

    def _make_service(self) -> Service:
        port = free_port()
        command = [sys.executable, "-I", "-S", "-c", SERVER, str(port)]
        config = ServiceConfig(
            proxy_port=port, idle_timeout=0, runtime={"kind": "process", "command": command}
        )
        runtime = ProcessRuntime(command, None, {}, port)
        return Service("whisper.test", config, runtime, emit=self.on_event)

    def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.StopBegan):
            self.stops += 1
            if leases := self.service.snapshot().leases:
                self.overlaps.append(f"{event} over {len(leases)} leases")

    async def call(self, dice: random.Random) -> None:
        for _ in range(REQUESTS // CALLERS):
            await asyncio.sleep(dice.choice((0, 0, 0.001, 0.02)))
            request = asyncio.create_task(self.request(dice.choice((0, 0.001, 0.005))))
            if dice.random() < 0.2:
                await asyncio.sleep(dice.uniform(0, 0.03))
                request.cancel()
            await asyncio.wait({request})
            if request.cancelled():
                self.left += 1
            elif request.exception() is not None:
                self.cut.append(repr(request.exception()))
            else:
                self.answers.append(request.result())

    async def request(self, work_s: float) -> bytes:
        async with self.service.lease("test") as lease:
            reader, writer = await asyncio.open_connection(lease.endpoint.host, lease.endpoint.port)
            try:
                await asyncio.sleep(work_s)
                writer.write(b"ask")
                return await reader.read()
            finally:
                writer.transport.abort()


def test_no_request_is_cut_while_the_reaper_ticks_on_every_turn():
    async def body() -> Campaign:
        campaign = Campaign()
        reaper = asyncio.create_task(reap(lambda: [campaign.service], tick_s=0))
        try:
            async with asyncio.timeout(60):
                await asyncio.gather(*(campaign.call(random.Random(seed)) for seed in range(CALLERS)))
        finally:
            reaper.cancel()
            await asyncio.wait({reaper})
            await campaign.service.close()
        return campaign

    campaign = asyncio.run(body())
    assert campaign.cut == []
    assert campaign.overlaps == []
    assert set(campaign.answers) == {b"whole"}
    assert len(campaign.answers) + campaign.left == REQUESTS
    assert campaign.left > 0
    assert campaign.stops > 3
