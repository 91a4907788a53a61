"""What every test may lean on: tests that need a Docker engine are skipped, or fail, where none answers."""

import asyncio
import functools
import os

import pytest
from hypothesis import HealthCheck, Phase, settings

from autostart.errors import RuntimeFailure

# How long an example takes says something of the machine, and nothing of what is tested. CI draws the same examples
# for the same code, as hypothesis does there by itself: the hunt for new ones goes on where somebody looks.
settings.register_profile(
    "autostart",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("autostart")
# For code that is broken on purpose (tests/breaking.py): that it fails is enough, nobody reads the example.
settings.register_profile(
    "broken", settings.get_profile("autostart"), phases=[Phase.explicit, Phase.generate], derandomize=True
)


@functools.cache
def _missing_engine() -> str | None:
    """Say why no Docker engine can be used here; None where one answers."""
    from autostart.runtime.compose import Engine  # imports docker, which most tests do not need

    async def ask() -> None:
        engine = Engine()
        try:
            await engine.call("looking for an engine", lambda client: client.ping(), limit_s=10)
        finally:
            await engine.close()

    try:
        asyncio.run(ask())
    except RuntimeFailure as exc:
        return str(exc)
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `docker` where no engine answers; fail it where AUTOSTART_REQUIRE_DOCKER=1 asks for one."""
    if item.get_closest_marker("docker") and (missing := _missing_engine()):
        if os.environ.get("AUTOSTART_REQUIRE_DOCKER") == "1":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
