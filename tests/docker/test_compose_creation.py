"""Containers are created, replaced and left alone as the compose file and the person at the machine want it."""

import asyncio
import os

import pytest
from stacks import PAIR, WEB, Relay, fetch

from autostart.runtime.base import Change, RunState, StopMethod
from autostart.runtime.compose import ComposeCommand, ComposeRuntime, Engine

pytestmark = pytest.mark.docker


def test_start_creates_what_is_missing_and_says_where_it_answers(new_stack, compose):
    stack = new_stack(compose).write(WEB)

    async def main():
        async with stack.runtime(f"{stack.name}-web") as watched:
            endpoint = await watched.runtime.start()
            assert await fetch(endpoint.host, endpoint.port) == b"hello from the backend\n"
            await watched.event(Change.STARTED)

    asyncio.run(main())


def test_nothing_that_is_looked_at_is_created(web):
    async def main():
        async with web.runtime() as watched:
            return await watched.runtime.observe()

    assert asyncio.run(main()).state is RunState.STOPPED
    assert web.states() == {}


def test_what_exists_is_started_without_the_compose_command(web):
    web.compose("up", "--no-start")
    web.words = ("false",)

    async def main():
        async with web.runtime() as watched:
            await watched.runtime.start()

    asyncio.run(main())
    assert web.states() == {"web": "running"}


def test_an_edited_file_is_picked_up_at_the_next_start(new_stack, compose):
    stack = new_stack(compose).write(WEB)

    async def main():
        async with stack.runtime() as watched:
            await watched.runtime.start()
            await watched.runtime.stop(StopMethod.STOP, 5)
            stack.write(stack.text() + '    environment: {COLOUR: "blue"}\n')
            await watched.runtime.start()

    asyncio.run(main())
    assert "COLOUR=blue" in stack.inspect("web")["Config"]["Env"]


def test_an_edit_of_what_an_extended_file_extends_is_picked_up_at_the_next_start(new_stack, compose):
    stack = new_stack(compose)
    base = stack.directory / "base.yml"
    base.write_text("services: {base: {image: autostart-test/backend}}\n")
    (stack.directory / "part.yml").write_text(
        "services: {part: {extends: {file: base.yml, service: base}}}\n"
    )
    stack.write("services: {web: {extends: {file: part.yml, service: part}}}")

    async def main():
        async with stack.runtime() as watched:
            await watched.runtime.start()
            await watched.runtime.stop(StopMethod.STOP, 5)
            base.write_text(
                "services: {base: {image: autostart-test/backend, environment: {COLOUR: blue}}}\n"
            )
            await watched.runtime.start()

    asyncio.run(main())
    assert "COLOUR=blue" in stack.inspect("web")["Config"]["Env"]


def test_a_file_edited_while_nobody_watched_is_picked_up(web):
    web.compose("up", "--no-start")
    created_s = int(web.listed("web")["Created"])
    web.write(web.text() + '    environment: {COLOUR: "blue"}\n')
    os.utime(web.directory / "docker-compose.yml", (created_s + 5, created_s + 5))

    async def main():
        async with web.runtime() as watched:
            await watched.runtime.start()

    asyncio.run(main())
    assert "COLOUR=blue" in web.inspect("web")["Config"]["Env"]


def test_a_running_container_is_not_replaced_for_an_edited_file(stack):
    stack.write(PAIR)

    async def main():
        async with stack.runtime() as watched:
            await watched.runtime.start()
            before = stack.id_of("db")
            stack.client.remove_container(stack.id_of("web"), force=True)
            stack.write(stack.text() + '    environment: {COLOUR: "blue"}\n')
            await watched.runtime.start()
            assert stack.id_of("db") == before

    asyncio.run(main())
    assert stack.states() == {"web": "running", "db": "running"}


def test_a_pruned_container_is_created_again(new_stack, compose):
    stack = new_stack(compose).write(WEB)

    async def main():
        async with stack.runtime(f"{stack.name}-web") as watched:
            await watched.runtime.start()
            await watched.runtime.stop(StopMethod.STOP, 5)
            stack.client.remove_container(stack.id_of("web"))
            await watched.runtime.start()

    asyncio.run(main())
    assert stack.states() == {"web": "running"}


def test_two_runtimes_create_what_they_share_one_after_the_other(new_stack, compose):
    stack = new_stack(compose).write(PAIR + "  api: {image: autostart-test/backend, depends_on: [db]}\n")

    async def main():
        engine, command = Engine(), ComposeCommand(None, [stack.words])
        both = [ComposeRuntime(engine, command, stack.directory, [name], 1) for name in ("web", "api")]
        for runtime in both:
            runtime.watch(lambda _: None)
        await asyncio.gather(*(runtime.start() for runtime in both))
        for runtime in both:
            await runtime.close()
        await engine.close()

    asyncio.run(main())
    assert stack.states() == {"web": "running", "api": "running", "db": "running"}
    assert len(stack.client.networks(names=[f"{stack.name}_default"])) == 1


def test_what_a_person_creates_at_the_same_time_is_taken(web, tmp_path):
    relay = Relay(tmp_path / "relay.sock", hold=b"/containers/create")
    web.address = relay.address

    async def main():
        await relay.open()
        async with web.runtime() as watched:
            start = asyncio.create_task(watched.runtime.start())
            await relay.held.wait()
            await asyncio.to_thread(web.compose, "up", "-d")
            by_hand = web.id_of("web")
            relay.released.set()
            await start
            assert web.id_of("web") == by_hand
        await relay.cut()

    asyncio.run(main())
    assert web.states() == {"web": "running"}


def test_a_pruned_network_is_created_again(new_stack, compose):
    stack = new_stack(compose).write(WEB)

    async def main():
        async with stack.runtime() as watched:
            await watched.runtime.start()
            await watched.runtime.stop(StopMethod.STOP, 5)
            stack.client.remove_network(f"{stack.name}_default")
            endpoint = await watched.runtime.start()
            await fetch(endpoint.host, endpoint.port)

    asyncio.run(main())
    assert stack.states() == {"web": "running"}


def test_services_of_another_file_are_known_through_compose(new_stack, compose):
    stack = new_stack(compose)
    (stack.directory / "base.yml").write_text("services: {base: {image: autostart-test/backend}}\n")
    stack.write(
        """
        services:
          web:
            extends: {file: base.yml, service: base}
            ports: ["127.0.0.1:{port}:8080"]
        """,
    )

    async def main():
        async with stack.runtime("web") as watched:
            endpoint = await watched.runtime.start()
            await fetch(endpoint.host, endpoint.port)

    asyncio.run(main())
    assert stack.states() == {"web": "running"}
