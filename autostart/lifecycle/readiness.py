"""Find the moment when a started service really answers.

Owns the polling: one poller a start, however many wait for it. How often is `polling`'s.
"""

import asyncio
from collections.abc import Awaitable, Callable

from autostart.config import Readiness
from autostart.lifecycle import polling, probe
from autostart.runtime.base import Endpoint, HealthResult

CheckHealth = Callable[[], Awaitable[HealthResult | None]]


class ReadinessCheck:
    """The readiness rule of one service, and what it heard last.

    `last_answer` is kept in words for the error that a start which never becomes ready ends with.
    """

    def __init__(self, rule: Readiness, host: str) -> None:
        self._rule = rule
        self._host = host
        self.last_answer = "it was never asked"

    async def wait(self, endpoint: Endpoint, check_health: CheckHealth) -> None:
        """Return as soon as the service at `endpoint` answers as the rule says.

        Has no limit of its own: the caller's timeout or cancellation ends it, leaving no connection open.
        Raises RuntimeFailure when the health check cannot be run at all.
        """
        self.last_answer = "it was never asked"
        with polling.everybody.place():
            await self._wait(endpoint, check_health)

    async def _wait(self, endpoint: Endpoint, check_health: CheckHealth) -> None:
        begun = asyncio.get_running_loop().time()
        checks_health = self._rule.health_check == "always" or (
            self._rule.health_check == "auto" and self._rule.path is None
        )
        while not await self._answers(endpoint):
            await polling.everybody.pause(begun)
        while checks_health:
            result = await check_health()
            if result is None or result.healthy:
                return
            self.last_answer = f"its health check fails: {result.output or 'it printed nothing'}"
            await polling.everybody.pause(begun)

    async def _answers(self, endpoint: Endpoint) -> bool:
        try:
            reader, writer = await probe.connect(endpoint)
        except OSError as exc:  # TimeoutError is one
            reason = exc.strerror or "no connection in time"
            self.last_answer = f"{endpoint.host}:{endpoint.port} did not accept a connection ({reason})"
            return False
        try:
            if self._rule.path is None and not endpoint.accepts_early:
                return True
            async with asyncio.timeout(self._rule.attempt_timeout):
                status = await probe.ask_status(reader, writer, self._rule.path or "/", self._host)
        except TimeoutError:
            self.last_answer = f"it accepted but did not answer within {self._rule.attempt_timeout:g} s"
            return False
        except probe.TROUBLE:
            self.last_answer = "it closed the connection without an answer"
            return False
        finally:
            writer.transport.abort()
        if self._rule.path is None:
            return True
        self.last_answer = f"GET {self._rule.path} answered {status}"
        return self._rule.accepts(status)
