"""An engine that hangs for some projects, in whatever call, is there for the others."""

import asyncio

import pytest
from stacks import Relay, Stack, any_compose
from waiting import LIMIT_S, until

from autostart.errors import RuntimeFailure
from autostart.runtime.base import RunState, StopMethod
from autostart.runtime.compose import ComposeCommand, ComposeRuntime, Engine

pytestmark = pytest.mark.docker

MANY = 64
WEB = """
services:
  web:
    image: autostart-test/backend
    container_name: {name}-{number}
"""


def runtimes(stack: Stack, engine: Engine) -> list[ComposeRuntime]:
    """Many projects, without containers so far, whose names begin with the stack's."""
    made = []
    for number in range(MANY):
        directory = stack.directory / f"{stack.name}-{number}"
        directory.mkdir()
        (directory / "docker-compose.yml").write_text(
            WEB.replace("{name}", stack.name).replace("{number}", str(number))
        )
        command = ComposeCommand(engine.address, [any_compose()])
        made.append(ComposeRuntime(engine, command, directory, (), 1))
    return made


async def starts_looks_and_stops(runtime: ComposeRuntime) -> bool:
    async with asyncio.timeout(LIMIT_S):
        await runtime.start()
        runs = (await runtime.observe()).state is RunState.RUNNING
        await runtime.log_tail(5)
        await runtime.stop(StopMethod.STOP, 1)
        return runs and (await runtime.observe()).state is RunState.STOPPED


@pytest.mark.parametrize("doing", ["start", "stop", "observe", "log_tail"])
def test_a_project_is_started_looked_at_and_stopped_while_many_others_hang(new_stack, tmp_path, doing):
    hung, web = new_stack(), new_stack()
    web.write("services: {web: {image: autostart-test/backend, ports: ['127.0.0.1:{port}:8080']}}")
    web.compose("up", "--no-start")
    relay = Relay(tmp_path / "relay.sock", hold=hung.name.encode())
    actions = {"start": lambda r: r.start(), "stop": lambda r: r.stop(StopMethod.STOP, 1)}
    actions |= {"observe": lambda r: r.observe(), "log_tail": lambda r: r.log_tail(5)}

    async def main():
        await relay.open()
        engine = Engine(relay.address)
        hanging = [asyncio.create_task(actions[doing](runtime)) for runtime in runtimes(hung, engine)]
        try:
            await until(lambda: relay.holds >= 9)  # more than look at a time
            web.address = relay.address
            assert await starts_looks_and_stops(web.unwatched(engine=engine))
            assert not any(task.done() for task in hanging)
        finally:
            cutting = asyncio.create_task(relay.cut())  # what is let go finds no engine any more
            await asyncio.sleep(0)
            relay.released.set()
            await cutting
            outcomes = await asyncio.gather(*hanging, return_exceptions=True)
            await engine.close()
        assert all(isinstance(outcome, RuntimeFailure) for outcome in outcomes)

    asyncio.run(main())
