"""Promises 1 and 2 on a real process: requests come and go in any order while the reaper never rests."""

import asyncio
import random
import sys
from collections import Counter

from processes import free_port

from autostart.config import Service as ServiceConfig
from autostart.lifecycle import Service, State, events
from autostart.lifecycle.reaper import reap
from autostart.runtime.process import ProcessRuntime

REQUESTS = 10_000
WAVE = 40
"""So many requests come close together. Between two waves nobody does, or nothing would ever stop."""
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
        self.dice = random.Random(3)
        self.answers: Counter[bytes] = Counter()
        self.cut: list[str] = []
        self.left_while: Counter[str] = Counter()
        """How many were cancelled, by the state that the service was in."""
        self.told: Counter[str] = Counter()
        self.overlaps: list[str] = []
        self.is_over = asyncio.Event()
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
        self.told[type(event).__name__] += 1
        if isinstance(event, events.StopBegan) and (leases := self.service.snapshot().leases):
            self.overlaps.append(f"{event} over {len(leases)} leases")
            self.is_over.set()

    async def run(self) -> None:
        """Let all waves come, one after the other, up to the first thing that goes wrong."""
        over = asyncio.create_task(self.is_over.wait())
        for _ in range(REQUESTS // WAVE):
            wave = asyncio.create_task(self.wave())
            await asyncio.wait({wave, over}, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                wave.cancel()
                await asyncio.wait({wave})
                return
        over.cancel()

    async def wave(self) -> None:
        """Let `WAVE` requests come, most of them at once, and end or leave."""
        await asyncio.gather(*(self.caller() for _ in range(WAVE)))
        await asyncio.sleep(self.dice.choice((0, 0, 0.001, 0.01)))

    async def caller(self) -> None:
        await asyncio.sleep(self.dice.choice((0, 0, 0.001, 0.01, 0.03)))
        through = asyncio.Event()
        request = asyncio.create_task(self.request(through, self.dice.choice((0.001, 0.005, 0.02))))
        if self.dice.random() < 0.2:
            await self.moment_to_leave(request, through)
            state = "in flight" if through.is_set() else self.service.state.value
            if request.cancel():
                self.left_while[state] += 1
        await asyncio.wait({request})
        if request.cancelled():
            self.answers[b"left"] += 1
        elif request.exception() is not None:
            self.cut.append(repr(request.exception()))
            self.is_over.set()
        else:
            self.answers[request.result()] += 1

    async def moment_to_leave(self, request: asyncio.Task, through: asyncio.Event) -> None:
        """Wait until the request is in one of its phases, and then for some turns of the loop."""
        match self.dice.choice(("at once", "starting", "in flight")):
            case "starting":
                while self.service.state in {State.STOPPED, State.STOPPING}:
                    await asyncio.sleep(0.0005)
            case "in flight":
                waiting = asyncio.create_task(through.wait())
                await asyncio.wait({waiting, request}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        for _ in range(self.dice.randrange(8)):
            await asyncio.sleep(0)

    async def request(self, through: asyncio.Event, work_s: float) -> bytes:
        async with self.service.lease("test") as lease:
            through.set()
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
            async with asyncio.timeout(300):
                await campaign.run()
        finally:
            reaper.cancel()
            await asyncio.wait({reaper})
            await campaign.service.close()
        return campaign

    campaign = asyncio.run(body())
    assert campaign.cut == []
    assert campaign.overlaps == []
    assert set(campaign.answers) == {b"whole", b"left"}
    assert campaign.answers.total() == REQUESTS
    assert 0.15 * REQUESTS < campaign.answers[b"left"] < 0.25 * REQUESTS
    assert min(campaign.left_while[phase] for phase in (State.STOPPING, State.STARTING, "in flight")) > 100
    assert campaign.told["StopBegan"] >= REQUESTS // WAVE
