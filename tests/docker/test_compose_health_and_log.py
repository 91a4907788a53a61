"""The container's own health check and its log, asked for when they are needed."""

import asyncio

import pytest
from stacks import ENDS_WHEN_TOLD, fetch

from autostart.errors import Exited
from autostart.runtime.base import Change, StopMethod

pytestmark = pytest.mark.docker


def test_the_health_check_of_the_container_is_run_on_demand(web):
    web.write(
        web.text()
        + """    environment: {HEALTH_DELAY_S: "3600"}
    healthcheck: {test: ["CMD", "/bin/health"], interval: 1h}
"""
    )

    async def main():
        async with web.runtime() as watched:
            await watched.runtime.start()
            before = await watched.runtime.check_health()
            web.run_in("web", "touch", "/run/healthy")
            return before, await watched.runtime.check_health()

    before, after = asyncio.run(main())
    assert (before.healthy, before.output) == (False, "the model is still loading")
    assert after.healthy


def test_a_container_without_a_health_check_says_so(web):
    async def main():
        async with web.runtime() as watched:
            await watched.runtime.start()
            return await watched.runtime.check_health()

    assert asyncio.run(main()) is None


def test_the_log_tail_is_of_this_run_only(web):
    web.write(web.text() + '    environment: {LOG_LINE: "a line"}\n')

    async def main():
        async with web.runtime() as watched:
            for _ in range(2):
                endpoint = await watched.runtime.start()
                await fetch(endpoint.host, endpoint.port)
                while "a line" not in (tail := await watched.runtime.log_tail(10)):
                    await asyncio.sleep(0.01)  # the engine writes its log in its own time
                await watched.runtime.stop(StopMethod.STOP, 5)
                await asyncio.to_thread(web.client.wait, web.id_of("web"))
            return tail

    assert asyncio.run(main()).count("a line") == 1


def test_the_health_of_what_has_ended_is_how_it_ended(web):
    web.write(
        web.text()
        + """    environment: {LOG_LINE: "out of credit"}
    healthcheck: {test: ["CMD", "/bin/health"], interval: 1h}
"""
        + ENDS_WHEN_TOLD
    )

    async def main():
        async with web.runtime() as watched:
            await watched.runtime.start()
            web.end("web", 4)
            await watched.event(Change.DIED)
            await watched.runtime.check_health()

    with pytest.raises(Exited) as caught:
        asyncio.run(main())
    assert caught.value.exit_code == 4
    assert "out of credit" in caught.value.log_tail


def test_the_log_tail_is_of_the_container_that_died(stack):
    stack.write(
        """
services:
  web: {image: autostart-test/backend}
  worker:
    image: autostart-test/backend
    environment: {LOG_LINE: "worker says no"}
"""
        + ENDS_WHEN_TOLD
    )

    async def main():
        async with stack.runtime() as watched:
            await watched.runtime.start()
            stack.end("worker", 4)
            await watched.event(Change.DIED)
            return await watched.runtime.log_tail(10)

    assert "worker says no" in asyncio.run(main())
