"""What the tests of the proxy share: they run on both event loops, asyncio's and uvloop."""

import asyncio

import pytest
import uvloop
from waiting import LIMIT_S


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine to its end, with a limit, on the loop that the test is run on."""
    runner = asyncio.run if request.param == "asyncio" else uvloop.run

    def bounded(coroutine, limit_s=2 * LIMIT_S):
        async def within():
            async with asyncio.timeout(limit_s):
                return await coroutine

        return runner(within())

    return bounded
