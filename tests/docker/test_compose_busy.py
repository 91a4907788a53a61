"""Work that no request tells of, in real containers: their CPU time, and the whole program that waits for its end."""

import asyncio

import docker
import pytest
from program import HOST, Gateway, running
from stacks import PAIR, fetch
from waiting import LIMIT_S

from autostart.runtime.base import StopMethod
from autostart.runtime.compose.inspection import cpu_seconds

pytestmark = pytest.mark.docker

BURN = "while [ ! -e /run/done ]; do :; done"


def work(stack, service: str) -> None:
    """Let a container use a whole CPU from now on, until `rest`."""
    stack.run_in(service, "rm", "-f", "/run/done")
    execution = stack.client.exec_create(stack.id_of(service), ["sh", "-c", BURN])["Id"]
    stack.client.exec_start(execution, detach=True)


def rest(stack, service: str) -> None:
    stack.run_in(service, "touch", "/run/done")


def test_cpu_time_of_all_containers_that_a_stop_would_end_is_told(stack):
    stack.write(PAIR)

    async def main():
        async with stack.runtime() as watched:
            await watched.runtime.start()
            before = await watched.runtime.cpu_seconds()
            assert before.keys() == {stack.id_of("web"), stack.id_of("db")}
            work(stack, "db")
            async with asyncio.timeout(LIMIT_S):
                while (await watched.runtime.cpu_seconds())[stack.id_of("db")] < before[
                    stack.id_of("db")
                ] + 0.5:
                    pass

    asyncio.run(main())


def test_cpu_time_of_a_neighbours_container_is_its_own_affair(stack):
    stack.write(PAIR)

    async def main():
        async with stack.runtime("db") as watched:
            other = stack.unwatched("web", engine=watched.engine)
            other.watch(lambda event: None)
            await other.start()
            assert (await watched.runtime.cpu_seconds()).keys() == {stack.id_of("db")}
            await other.close()

    asyncio.run(main())


def test_cpu_time_begins_anew_with_each_run(web):
    async def main():
        async with web.runtime() as watched:
            await watched.runtime.start()
            work(web, "web")
            async with asyncio.timeout(LIMIT_S):
                while sum((await watched.runtime.cpu_seconds()).values()) < 1:
                    pass
            await watched.runtime.stop(StopMethod.STOP, 5)
            endpoint = await watched.runtime.start()
            await fetch(endpoint.host, endpoint.port)
            return await watched.runtime.cpu_seconds()

    assert sum(asyncio.run(main()).values()) < 1


def test_engine_of_before_there_was_one_shot_tells_it_too(web):
    web.compose("up", "-d")
    old = docker.APIClient(version="1.40", **docker.utils.kwargs_from_env())
    try:
        assert cpu_seconds(old, web.id_of("web"), "web") > 0
    finally:
        old.close()


@pytest.fixture
def gateway(web, tmp_path):
    """A gateway before the project `web`, which is idle after a second."""
    gateway = Gateway(tmp_path)
    service = {"composeDir": str(web.directory), "proxyPort": web.port, "idleTimeout": 1}
    gateway.options["services"] = {HOST: service}
    return gateway


def busy(gateway: Gateway) -> bool:
    return f'autostart_busy{{service="{HOST}"}} 1' in gateway.metrics()


def test_container_that_works_after_its_request_sleeps_once_its_cpu_rests(gateway, web):
    gateway.options["services"][HOST]["busyCpuPercent"] = 5  # a busy machine leaves it little
    gateway.write()
    with running(gateway):
        assert gateway.get("/").status_code == 200
        assert gateway.cli("hold", HOST, "--for", "1h").returncode == 0  # until it works
        work(web, "web")
        gateway.until(lambda: busy(gateway))
        assert gateway.cli("release", HOST).returncode == 0
        told = gateway.cli("explain", HOST).stdout
        assert "It stays up because it is busy by itself: its CPU is at" in told
        assert "(busyCpuPercent is 5)." in told
        rest(web, "web")
        gateway.until(lambda: gateway.state() == "stopped")
        assert web.states() == {"web": "exited"}


def test_container_that_says_it_is_busy_sleeps_once_it_says_it_is_not(gateway, web):
    gateway.options["services"][HOST]["busyPath"] = "/busy"
    gateway.write()
    with running(gateway):
        assert gateway.get("/").status_code == 200
        gateway.until(lambda: busy(gateway))  # it has no such path yet
        assert "Autostart cannot tell whether it is busy: busyPath /busy answered 404" in (
            gateway.cli("explain", HOST).stdout
        )
        web.run_in("web", "sh", "-c", "echo '{\"busy\": true}' >/www/new; mv /www/new /www/busy")
        gateway.until(lambda: "/busy says that it is busy" in gateway.cli("explain", HOST).stdout)
        web.run_in("web", "sh", "-c", "echo '{\"busy\": false}' >/www/new; mv /www/new /www/busy")
        gateway.until(lambda: gateway.state() == "stopped")
