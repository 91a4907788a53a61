"""What happens while a password is being checked is seen by the request that it was checked for."""

import asyncio

from gateways import open_gateway

from autostart.auth import Identity, Method
from autostart.lifecycle import State


class SlowDoor:
    """Lets everybody in, once `gate` is open; `asked` says that somebody stands before it."""

    def __init__(self) -> None:
        self.gate, self.asked = asyncio.Event(), asyncio.Event()

    def remembered(self, authorization):
        return None

    async def authenticate(self, authorization):
        self.asked.set()
        await self.gate.wait()
        return Identity("alice", Method.BASIC)


def after_the_check(run, meanwhile, path="/"):
    """Return status and code of a request during whose authentication `meanwhile(gateway)` happens."""

    async def check():
        door = SlowDoor()
        async with open_gateway(authenticator=door) as gateway:
            asked = asyncio.ensure_future(gateway.ask(path=path).__aenter__())
            await door.asked.wait()
            await meanwhile(gateway)
            door.gate.set()
            answer = await asked
            told = answer.status, (await answer.json())["error"]["code"]
            answer.release()
            return told, gateway.runtime.starts

    return run(check())


def test_a_drain_that_began_meanwhile_refuses_it(run):
    async def drain(gateway):
        gateway.proxy.draining = True

    assert after_the_check(run, drain) == ((503, "shutting_down"), 1)


def test_a_service_that_left_the_configuration_meanwhile_is_not_found(run):
    async def reload(gateway):
        gateway.proxy.routes = {}

    assert after_the_check(run, reload) == ((404, "unknown_host"), 1)


def test_a_quiet_request_does_not_wake_what_fell_asleep_meanwhile(run):
    async def stop(gateway):
        await gateway.service.stop()
        assert gateway.service.state is State.STOPPED

    assert after_the_check(run, stop, path="/favicon.ico") == ((503, "asleep"), 1)
