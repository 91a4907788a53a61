"""What the tests of runtimes lean on: both event loops, and waiting for what happens elsewhere."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from waiting import until

type_of_loop = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=list(type_of_loop))
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine to its end on each kind of event loop; what it leaves running is cancelled."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=type_of_loop[request.param]) as runner:
            return runner.run(coroutine)

    return run


@pytest.fixture
def eventually() -> Callable[..., Coroutine[Any, Any, None]]:
    """Wait until a condition holds; fail, showing `what`, where it never does."""
    return until
