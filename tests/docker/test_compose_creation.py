"""Containers are created, replaced and left alone as the compose file and the person at the machine want it."""

import asyncio
import os

import pytest
from stacks import PAIR, WEB, fetch

from autostart.runtime.base import Change, RunState, StopMethod

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
