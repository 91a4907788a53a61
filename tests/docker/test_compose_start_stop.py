"""Starting, stopping and looking at real compose projects."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from stacks import COMPOSE, PAIR, WEB, Relay, fetch, is_installed
from waiting import LIMIT_S

from autostart.errors import StoppedByHand
from autostart.runtime.base import Change, Endpoint, RunState, StopMethod

pytestmark = pytest.mark.docker


def test_the_endpoint_is_the_containers_own_address(web):
    async def main():
        async with web.runtime() as watched:
            endpoint = await watched.runtime.start()
            seen = await watched.runtime.observe()
            return endpoint, seen

    endpoint, seen = asyncio.run(main())
    networks = web.client.inspect_container(web.id_of("web"))["NetworkSettings"]["Networks"]
    assert endpoint == Endpoint(next(iter(networks.values()))["IPAddress"], 8080, accepts_early=False)
    assert (seen.state, seen.endpoint) == (RunState.RUNNING, endpoint)


def test_on_the_host_network_the_endpoint_is_the_loopback_port(stack):
    stack.write(
        """
        services:
          web:
            image: autostart-test/backend
            network_mode: host
            environment: {PORT: "{port}"}
        """,
    )

    async def main():
        async with stack.runtime() as watched:
            endpoint = await watched.runtime.start()
            await fetch(endpoint.host, endpoint.port)
            return endpoint

    assert asyncio.run(main()) == Endpoint("127.0.0.1", stack.port, accepts_early=False)


def test_when_it_began_to_run_is_told(web):
    async def main():
        async with web.runtime() as watched:
            before_s = time.time()
            await watched.runtime.start()
            assert before_s <= (await watched.runtime.observe()).started_at_s <= time.time()

    asyncio.run(main())


def test_dependencies_start_first_and_stop_last(stack):
    stack.write(PAIR)

    async def main():
        async with stack.runtime("web") as watched:
            await watched.runtime.start()
            await watched.runtime.stop(StopMethod.STOP, 5)

    asyncio.run(main())
    state = {service: stack.inspect(service)["State"] for service in ("web", "db")}
    assert state["db"]["StartedAt"] < state["web"]["StartedAt"]
    assert state["web"]["FinishedAt"] < state["db"]["FinishedAt"]
    assert stack.states() == {"web": "exited", "db": "exited"}


def test_a_dependent_waits_until_its_dependency_is_healthy(stack):
    stack.write(
        PAIR.replace("[db]", "{db: {condition: service_healthy}}")
        + """
    environment: {HEALTH_DELAY_S: "0.5"}
    healthcheck: {test: ["CMD", "/bin/health"], interval: 30s}
""",
    )

    async def main():
        async with stack.runtime() as watched:
            await watched.runtime.start()
            return await watched.runtime.observe()

    assert asyncio.run(main()).state is RunState.RUNNING
    # /run/healthy was there before the dependent began, though Docker's own check comes after 30 s only.
    assert stack.run_in("db", "stat", "-c", "%Y", "/run/healthy") <= stack.run_in(
        "web", "stat", "-c", "%Y", "/run"
    )


def test_a_one_shot_has_ended_before_its_dependent_starts_and_need_not_run(stack):
    stack.write(
        PAIR.replace("[db]", "{db: {condition: service_completed_successfully}}")
        + """
    environment: {EXIT_CODE: "0", START_DELAY_S: "0.3"}
""",
    )

    async def main():
        async with stack.runtime() as watched:
            await watched.runtime.start()
            return await watched.runtime.observe()

    assert asyncio.run(main()).state is RunState.RUNNING
    assert stack.states() == {"web": "running", "db": "exited"}
    assert stack.inspect("db")["State"]["FinishedAt"] < stack.inspect("web")["State"]["StartedAt"]


def test_starting_what_runs_changes_nothing(web):
    async def main():
        async with web.runtime() as watched:
            first = await watched.runtime.start()
            begun = web.inspect("web")["State"]["StartedAt"]
            assert await watched.runtime.start() == first
            assert web.inspect("web")["State"]["StartedAt"] == begun

    asyncio.run(main())


def test_paused_containers_keep_their_process_and_are_thawed_by_a_start(web):
    async def main():
        async with web.runtime() as watched:
            endpoint = await watched.runtime.start()
            pid = web.pid_of("web")
            await watched.runtime.stop(StopMethod.PAUSE, 5)
            await watched.event(Change.PAUSED)
            assert (await watched.runtime.observe()).state is RunState.PAUSED
            assert await watched.runtime.start() == endpoint
            assert (await watched.runtime.observe()).state is RunState.RUNNING
            assert web.pid_of("web") == pid

    asyncio.run(main())


def test_a_stop_ends_what_is_paused_and_what_ignores_the_signal(web):
    web.write(web.text() + '    environment: {IGNORE_TERM: "1"}\n')

    async def main():
        async with web.runtime() as watched:
            await watched.runtime.start()
            await watched.runtime.stop(StopMethod.PAUSE, 1)
            await watched.runtime.stop(StopMethod.STOP, 1)
            return await watched.runtime.observe()

    seen = asyncio.run(main())
    assert (seen.state, seen.exit_code) == (RunState.STOPPED, 137)


def test_a_stop_during_a_start_waits_for_what_the_engine_was_asked_already(web, tmp_path):
    web.compose("up", "--no-start")

    async def main():
        relay = Relay(tmp_path / "relay.sock", hold=b"/start HTTP")
        web.address = relay.address
        await relay.open()
        async with web.runtime() as watched:
            starts = [asyncio.create_task(watched.runtime.start()) for _ in range(2)]
            await relay.held.wait()
            stop = asyncio.create_task(watched.runtime.stop(StopMethod.STOP, 5))
            for start in starts:
                with pytest.raises(StoppedByHand):
                    await asyncio.wait_for(start, LIMIT_S)
            done, _ = await asyncio.wait({stop}, timeout=0.5)
            assert not done
            relay.released.set()
            await stop
            await watched.event(Change.DIED)
        await relay.cut()

    asyncio.run(main())
    assert web.states() == {"web": "exited"}


def by_docker(*words):
    return lambda web: web.docker(*words, web.id_of("web"))


def start_and_pause(web):
    web.docker("start", web.id_of("web"))
    web.docker("pause", web.id_of("web"))


def make_anew(web):
    web.docker("rm", web.id_of("web"))
    web.compose("up", "-d")


MEANWHILE = {
    "thawed": (["up", "pause"], b"/unpause HTTP", by_docker("unpause")),
    "killed-while-paused": (["up", "pause"], b"/unpause HTTP", by_docker("kill")),
    "removed-while-paused": (["up", "pause"], b"/unpause HTTP", by_docker("rm", "--force")),
    "started": (["create"], b"/start HTTP", by_docker("start")),
    "started-and-paused": (["create"], b"/start HTTP", start_and_pause),
    "removed": (["create"], b"/start HTTP", by_docker("rm")),
    "made-anew": (["create"], b"/start HTTP", make_anew),
}


@pytest.mark.parametrize(("before", "hold", "act"), MEANWHILE.values(), ids=MEANWHILE)
def test_a_start_gets_along_with_what_a_person_does_at_the_same_time(web, tmp_path, before, hold, act):
    for step in before:
        web.compose(*{"create": ("up", "--no-start"), "up": ("up", "-d"), "pause": ("pause",)}[step])

    async def main():
        relay = Relay(tmp_path / "relay.sock", hold=hold)
        web.address = relay.address
        await relay.open()
        async with web.runtime() as watched:
            start = asyncio.create_task(watched.runtime.start())
            await relay.held.wait()
            await asyncio.to_thread(act, web)
            by_hand = web.states() and web.id_of("web")
            relay.released.set()
            endpoint = await start
            await fetch(endpoint.host, endpoint.port)
        await relay.cut()
        return by_hand

    by_hand = asyncio.run(main())
    assert web.states() == {"web": "running"}
    assert by_hand in ({}, web.id_of("web"))


def test_a_stop_of_what_does_not_run_does_nothing(web):
    async def main():
        async with web.runtime() as watched:
            await watched.runtime.stop(StopMethod.STOP, 1)
            await watched.runtime.stop(StopMethod.PAUSE, 1)

    asyncio.run(main())
    assert web.states() == {}


def test_a_broken_compose_file_does_not_keep_the_containers_up(web):
    async def main():
        async with web.runtime() as watched:
            await watched.runtime.start()
            web.write("services: [")
            await watched.runtime.stop(StopMethod.STOP, 5)

    asyncio.run(main())
    assert web.states() == {"web": "exited"}


def test_what_was_never_looked_at_is_stopped_in_spite_of_a_broken_compose_file(web):
    # Without its .env, the directory's name is all that tells the project's.
    web.compose("-p", web.name, "up", "-d")
    web.write("services: [")

    async def main():
        runtime = web.unwatched()
        await runtime.stop(StopMethod.STOP, 5)
        await runtime.engine.close()

    asyncio.run(main())
    assert web.states() == {"web": "exited"}


def test_replicas_that_somebody_added_are_stopped_too(stack):
    stack.write("services: {web: {image: autostart-test/backend}}")

    async def main():
        runtime = stack.unwatched()
        await runtime.start()
        stack.compose("up", "-d", "--scale", "web=3")
        await runtime.stop(StopMethod.STOP, 5)
        await runtime.engine.close()

    asyncio.run(main())
    label = f"com.docker.compose.project={stack.name}"
    assert [item["State"] for item in stack.client.containers(all=True, filters={"label": label})] == [
        "exited"
    ] * 3


def test_a_container_that_does_not_matter_may_fail(stack):
    stack.write(
        WEB
        + """
  extra:
    image: autostart-test/backend
    entrypoint: ["/bin/nonsense"]
""",
    )

    async def main():
        async with stack.runtime("web") as watched:
            await watched.runtime.start()
            return (await watched.runtime.observe()).state

    assert asyncio.run(main()) is RunState.RUNNING


@pytest.mark.skipif(not is_installed(COMPOSE["v2"]), reason="docker-compose 1.29 knows no `required`")
def test_a_dependency_that_is_not_required_may_fail(stack):
    stack.write(
        WEB
        + """
    depends_on: {extra: {condition: service_completed_successfully, required: false}}
  extra:
    image: autostart-test/backend
    environment: {EXIT_CODE: "1"}
"""
    )

    async def main():
        async with stack.runtime("web") as watched:
            await watched.runtime.start()

    asyncio.run(main())
    assert stack.states() == {"web": "running", "extra": "exited"}


def test_two_runtimes_share_a_project_without_stopping_each_others_containers(stack):
    stack.write(PAIR.replace("depends_on: [db]", ""))

    async def main():
        async with stack.runtime("web") as web:
            db = stack.unwatched("db", engine=web.engine)
            db.watch(lambda _: None)
            await web.runtime.start()
            assert stack.states()["web"] == "running"
            assert stack.states().get("db") != "running"
            await db.start()
            await web.runtime.stop(StopMethod.STOP, 5)
            await db.close()

    asyncio.run(main())
    assert stack.states() == {"web": "exited", "db": "running"}


def test_what_another_runtime_has_started_is_not_left_over_of_all_of_the_project(stack):
    stack.write(PAIR.replace("depends_on: [db]", ""))

    async def main():
        async with stack.runtime() as everything:
            db = stack.unwatched("db", engine=everything.engine)
            db.watch(lambda _: None)
            await db.start()
            in_company = await everything.runtime.observe()
            await db.close()
            return in_company.has_remains, (await everything.runtime.observe()).has_remains

    assert asyncio.run(main()) == (False, True)


def test_a_runtime_that_gets_company_leaves_the_others_containers_alone_until_it_has_gone(stack, tmp_path):
    stack.write(PAIR.replace("depends_on: [db]", ""))
    (tmp_path / "link").symlink_to(stack.directory)

    async def main():
        async with stack.runtime("web") as web:
            await web.runtime.start()
            stack.directory = tmp_path / "link"
            db = stack.unwatched("db", engine=web.engine)
            db.watch(lambda _: None)
            await web.runtime.stop(StopMethod.STOP, 5)
            assert stack.states() == {"web": "exited", "db": "running"}
            await db.close()
            await web.runtime.stop(StopMethod.STOP, 5)

    asyncio.run(main())
    assert stack.states() == {"web": "exited", "db": "exited"}


@asynccontextmanager
async def a_stop_that_its_caller_leaves(stack, tmp_path):
    """A project that runs, a stop whose first words the engine has not heard yet, and the relay that keeps them."""
    stack.write(PAIR)
    relay = Relay(tmp_path / "relay.sock", hold=b"/stop?")
    stack.address = relay.address
    await relay.open()
    async with stack.runtime() as watched:
        await watched.runtime.start()
        stop = asyncio.create_task(watched.runtime.stop(StopMethod.STOP, 5))
        await relay.held.wait()
        stop.cancel()
        yield watched.runtime, stop, relay
    await relay.cut()


def test_a_stop_is_finished_though_its_caller_has_left_and_the_runtime_is_closed(stack, tmp_path):
    async def main():
        async with a_stop_that_its_caller_leaves(stack, tmp_path) as (_, stop, relay):
            await asyncio.wait({stop})
            relay.released.set()

    asyncio.run(main())
    assert stack.states() == {"web": "exited", "db": "exited"}


def test_a_start_comes_after_the_whole_stop_that_its_caller_has_left(stack, tmp_path):
    async def main():
        async with a_stop_that_its_caller_leaves(stack, tmp_path) as (runtime, stop, relay):
            start = asyncio.create_task(runtime.start())
            await asyncio.wait({stop})
            relay.released.set()
            await start
            assert stack.states() == {"web": "running", "db": "running"}

    asyncio.run(main())
    assert stack.states() == {"web": "running", "db": "running"}


def test_a_project_brought_up_under_another_name_is_found(web):
    web.compose("up", "-d")
    (web.directory / ".env").write_text("COMPOSE_PROJECT_NAME=something-else\n")

    async def main():
        async with web.runtime() as watched:
            return (await watched.runtime.observe()).state

    assert asyncio.run(main()) is RunState.RUNNING


def test_a_container_that_compose_did_not_make_is_found_by_its_name(stack, client):
    stack.write(WEB)
    name = f"{stack.name}-other"
    host = client.create_host_config(port_bindings={8080: ("127.0.0.1", stack.port)})
    made = client.create_container("autostart-test/backend", name=name, host_config=host, ports=[8080])
    try:

        async def main():
            stack.write(
                "services: {}\n".replace("{}", "{unused: {image: autostart-test/backend, profiles: [off]}}")
            )
            async with stack.runtime(name) as watched:
                await watched.runtime.start()
                await watched.event(Change.STARTED)
                return (await watched.runtime.observe()).state

        assert asyncio.run(main()) is RunState.RUNNING
    finally:
        client.remove_container(made["Id"], force=True)
