"""What happens to containers is told at once, and nothing is missed when the engine's events break off."""

import asyncio

import pytest
from stacks import ENDS_WHEN_TOLD, Relay, Stack, fetch

from autostart.runtime.base import Change, RunState, RuntimeEvent, StopMethod
from autostart.runtime.compose import engine

pytestmark = pytest.mark.docker

WEB = """
services:
  web:
    image: autostart-test/backend
    ports: ["127.0.0.1:{port}:8080"]
"""


async def docker(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec("docker", *arguments, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


@pytest.fixture
def web(stack):
    return stack.write(WEB)


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [(("stop",), 0), (("kill",), 137), (("kill", "--signal", "TERM"), 0), (("rm", "--force"), 137)],
    ids=["stop", "kill", "term", "rm"],
)
def test_a_death_that_somebody_asked_for_is_told_as_such(web, words, exit_code):
    async def main():
        async with web.runtime() as watched:
            endpoint = await watched.runtime.start()
            await fetch(endpoint.host, endpoint.port)
            await docker(*words, web.id_of("web"))
            return await watched.event(Change.DIED)

    assert asyncio.run(main()) == RuntimeEvent(Change.DIED, exit_code, by_hand=True)


def test_a_death_of_its_own_is_not_told_as_by_hand(web):
    web.write(web.text() + ENDS_WHEN_TOLD)

    async def main():
        async with web.runtime() as watched:
            await watched.runtime.start()
            web.end("web", 5)
            return await watched.event(Change.DIED)

    assert asyncio.run(main()) == RuntimeEvent(Change.DIED, 5)


def test_a_harmless_signal_by_hand_does_not_make_the_death_one_by_hand(web):
    web.write(web.text() + ENDS_WHEN_TOLD)

    async def main():
        async with web.runtime() as watched:
            await watched.runtime.start()
            await docker("kill", "--signal", "WINCH", web.id_of("web"))
            web.end("web", 5)
            return await watched.event(Change.DIED)

    assert asyncio.run(main()) == RuntimeEvent(Change.DIED, 5)


def test_a_kill_that_does_not_come_through_docker_is_no_want_of_memory(web):
    async def main():
        async with web.runtime() as watched:
            endpoint = await watched.runtime.start()
            await fetch(endpoint.host, endpoint.port)
            await docker("exec", web.id_of("web"), "sh", "-c", "true")
            process = await asyncio.create_subprocess_exec("kill", "-9", str(web.pid_of("web")))
            await process.wait()
            return await watched.event(Change.DIED)

    assert asyncio.run(main()) == RuntimeEvent(Change.DIED, 137)


def test_out_of_memory_is_told_with_the_death(web):
    eat = "while [ ! -e /hungry ]; do sleep 0.05; done; exec tail /dev/zero"
    web.write(web.text() + f'    mem_limit: 16m\n    command: ["/bin/sh", "-c", "{eat}"]\n')

    async def main():
        async with web.runtime() as watched:
            await watched.runtime.start()
            web.run_in("web", "touch", "/hungry")
            return await watched.event(Change.DIED)

    assert asyncio.run(main()) == RuntimeEvent(Change.DIED, 137, out_of_memory=True)


def test_an_earlier_kill_says_nothing_of_a_later_death(web):
    web.write(web.text() + ENDS_WHEN_TOLD)

    async def main():
        async with web.runtime() as watched:
            await watched.runtime.start()
            await watched.runtime.stop(StopMethod.STOP, 5)
            await watched.event(Change.DIED)
            seen = len(watched.events)
            await watched.runtime.start()
            web.end("web", 5)
            return await watched.event(Change.DIED, after=seen)

    assert asyncio.run(main()) == RuntimeEvent(Change.DIED, 5)


def test_what_a_person_starts_pauses_and_thaws_is_told(web):
    async def main():
        async with web.runtime() as watched:
            await asyncio.to_thread(web.compose, "up", "-d")
            await watched.event(Change.STARTED)
            assert (await watched.runtime.observe()).state is RunState.RUNNING
            await docker("pause", web.id_of("web"))
            await watched.event(Change.PAUSED)
            seen = len(watched.events)
            await docker("unpause", web.id_of("web"))
            await watched.event(Change.STARTED, after=seen)

    asyncio.run(main())


def test_started_is_told_once_everything_that_must_run_does(stack):
    stack.write(WEB + "  other:\n    image: autostart-test/backend\n")
    stack.compose("up", "--no-start")

    async def main():
        async with stack.runtime() as watched:
            await watched.runtime.observe()
            await docker("start", stack.id_of("web"))
            await docker("start", stack.id_of("other"))
            await watched.event(Change.STARTED)
            return [event.change for event in watched.events].count(Change.STARTED)

    assert asyncio.run(main()) == 1


EDITS = {
    "fewer": lambda text: text.partition("  other:")[0],
    "renamed": lambda text: text.replace("  web:", "  api:").replace("  other:", "  another:"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_what_a_person_brings_up_from_an_edited_file_is_noticed(stack, edit):
    stack.write(WEB + "  other:\n    image: autostart-test/backend\n")

    async def main():
        async with stack.runtime() as watched:
            await watched.runtime.start()
            await watched.runtime.stop(StopMethod.STOP, 5)
            stack.write(edit(stack.text()))
            seen = len(watched.events)
            await asyncio.to_thread(stack.compose, "up", "-d", "--remove-orphans")
            await watched.event(Change.RESYNC, after=seen)
            return (await watched.runtime.observe()).state

    assert asyncio.run(main()) is RunState.RUNNING


def test_containers_that_need_not_run_are_not_told_of(stack):
    stack.write(WEB + "  other:\n    image: autostart-test/backend\n")

    async def main():
        async with stack.runtime("web") as watched:
            await watched.runtime.start()
            await docker("kill", stack.id_of("other"))
            await docker("kill", stack.id_of("web"))
            await watched.event(Change.DIED)
            return [event.change for event in watched.events].count(Change.DIED)

    assert asyncio.run(main()) == 1


def test_the_containers_own_health_is_told_when_it_changes(web):
    web.write(web.text() + '    healthcheck: {test: ["CMD", "/bin/health"], interval: 200ms, retries: 1}\n')

    async def main():
        async with web.runtime() as watched:
            endpoint = await watched.runtime.start()
            await watched.event(Change.HEALTHY)
            await fetch(endpoint.host, endpoint.port, "/cgi-bin/unwell?gpu-lost")
            await watched.event(Change.UNHEALTHY)
            return await watched.runtime.check_health()

    result = asyncio.run(main())
    assert (result.healthy, result.output) == (False, "unwell: gpu-lost")


def test_when_the_events_break_off_everything_is_to_be_compared_afresh(web, tmp_path):
    relay = Relay(tmp_path / "relay.sock")
    web.address = relay.address

    async def main():
        await relay.open()
        async with web.runtime() as watched:
            await watched.runtime.start()
            await watched.event(Change.STARTED)
            await relay.cut()
            await docker("kill", web.id_of("web"))
            seen = len(watched.events)
            await relay.open()
            await watched.event(Change.RESYNC, after=seen)
            assert (await watched.runtime.observe()).state is RunState.STOPPED
            assert watched.engine.reconnects == 1
            seen = len(watched.events)
            await watched.runtime.start()
            await watched.event(Change.STARTED, after=seen)
        await relay.cut()

    asyncio.run(main())


@pytest.mark.parametrize("events_only", [True, False], ids=["events", "everything"])
def test_a_connection_that_is_open_and_silent_is_found_and_everything_compared_afresh(
    web, tmp_path, monkeypatch, events_only
):
    monkeypatch.setattr(engine, "_LIST_EVERY_S", 0.2)
    monkeypatch.setattr(engine, "_LIST_LIMIT_S", 0.5)
    monkeypatch.setattr(engine, "_LATE_EVENT_S", 0.01)
    relay = Relay(tmp_path / "relay.sock")
    web.address = relay.address

    async def main():
        await relay.open()
        async with web.runtime() as watched:
            await watched.runtime.start()
            await watched.event(Change.STARTED)
            listed = asyncio.Event()
            call = watched.engine.call

            async def noting(operation, *arguments, **options):
                outcome = await call(operation, *arguments, **options)
                if operation == "listing what runs":
                    listed.set()
                return outcome

            monkeypatch.setattr(watched.engine, "call", noting)
            await listed.wait()
            relay.silent(events_only=events_only)
            seen = len(watched.events)
            await docker("kill", web.id_of("web"))
            await watched.event(Change.RESYNC, after=seen)
            assert watched.engine.reconnects >= 1
            assert (await watched.runtime.observe()).state is RunState.STOPPED
            seen = len(watched.events)
            await watched.runtime.start()
            await watched.event(Change.STARTED, after=seen)
        await relay.cut()

    asyncio.run(main())


def test_a_container_that_moved_to_another_address_is_looked_at_again(stack, client, monkeypatch):
    monkeypatch.setattr(engine, "_LIST_EVERY_S", 0.2)
    stack.write(WEB)
    other = f"{stack.name}-other"

    async def main():
        async with stack.runtime() as watched:
            before = await watched.runtime.start()
            container = stack.id_of("web")
            network = f"{stack.name}_default"
            await docker("network", "create", "--label", f"com.docker.compose.project={stack.name}", other)
            seen = len(watched.events)
            await docker("network", "connect", other, container)
            await docker("network", "disconnect", network, container)
            await watched.event(Change.RESYNC, after=seen)
            while (now := (await watched.runtime.observe()).endpoint) == before:  # between the two steps
                await watched.event(Change.RESYNC, after=seen + 1)
            await fetch(now.host, now.port)
            assert watched.engine.reconnects == 0

    asyncio.run(main())


def test_a_runtime_that_is_closed_is_told_nothing_more(web):
    async def main():
        async with web.runtime() as watched, web.runtime() as other:
            await watched.runtime.close()
            seen = list(watched.events)
            await other.runtime.start()
            await other.event(Change.STARTED)
            return seen, watched.events

    seen, later = asyncio.run(main())
    assert seen == later


def test_an_engine_that_hangs_holds_up_only_its_own_callers(web, tmp_path):
    """One that accepts and never answers; it could be one call of a hundred, each has its own thread."""
    asked: set[asyncio.StreamWriter] = set()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.add(writer)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        asked.discard(writer)

    async def main():
        server = await asyncio.start_unix_server(never_answer, tmp_path / "silent.sock")
        hung = Stack(
            web.directory, web.client, web.words, address=f"unix://{tmp_path}/silent.sock"
        ).unwatched()
        hanging = [asyncio.create_task(hung.observe()) for _ in range(100)]
        try:
            async with web.runtime() as watched:
                await watched.runtime.start()
            assert not any(task.done() for task in hanging)
        finally:
            for task in hanging:
                task.cancel()
            await asyncio.wait(hanging)
            server.close()
            while asked:
                for writer in asked:
                    writer.transport.abort()
                await asyncio.sleep(0.005)

    asyncio.run(main())
    assert web.states() == {"web": "running"}
