"""Find the moment when a started service really answers.

Owns the probing: one poller a start, however many wait for it. Plain asyncio sockets; neither aiohttp nor
docker. Measured (DESIGN.md section 7): a poll costs 0.2 ms of CPU, so every 2 ms is affordable in the first
200 ms; against every 5 ms that takes 2 ms off the median of what a quick start is lengthened by (`bench cold`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from autostart.config import Readiness
from autostart.runtime.base import Endpoint, HealthResult

_POLL_S = 0.002
_SLOWEST_POLL_S = 0.05
_POLL_GROWTH = 0.01
"""The pause grows to this share of the time already waited, so a late answer is noticed within 1 %."""
_CONNECT_S = 0.25
"""A lost SYN is repeated by the kernel only after 1 s; a new attempt is faster."""

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
        begun = time.monotonic()
        checks_health = self._rule.health_check == "always" or (
            self._rule.health_check == "auto" and self._rule.path is None
        )
        while not await self._answers(endpoint):
            await _pause(begun)
        while checks_health:
            result = await check_health()
            if result is None or result.healthy:
                return
            self.last_answer = f"its health check fails: {result.output or 'it printed nothing'}"
            await _pause(begun)

    async def _answers(self, endpoint: Endpoint) -> bool:
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, limit=4096)
        except OSError as exc:  # TimeoutError is one
            reason = exc.strerror or "no connection in time"
            self.last_answer = f"{endpoint.host}:{endpoint.port} did not accept a connection ({reason})"
            return False
        try:
            if self._rule.path is None and not endpoint.accepts_early:
                return True
            async with asyncio.timeout(self._rule.attempt_timeout):
                status = await self._ask(reader, writer)
        except TimeoutError:
            self.last_answer = f"it accepted but did not answer within {self._rule.attempt_timeout:g} s"
            return False
        except (OSError, EOFError, ValueError):
            self.last_answer = "it closed the connection without an answer"
            return False
        finally:
            writer.transport.abort()
        if self._rule.path is None:
            return True
        self.last_answer = f"GET {self._rule.path} answered {status}"
        return self._rule.accepts(status)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        path = self._rule.path or "/"
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nUser-Agent: autostart\r\nConnection: close\r\n\r\n"
        )
        writer.write(request.encode("latin-1"))
        while True:
            line = await reader.readuntil(b"\n")
            version, status, *_ = line.split()
            if not version.startswith(b"HTTP/"):
                raise ValueError(line)
            if not 100 <= int(status) < 200:
                return int(status)
            while (await reader.readuntil(b"\n")).strip():
                pass


async def _pause(begun: float) -> None:
    waited = time.monotonic() - begun
    await asyncio.sleep(min(max(_POLL_S, waited * _POLL_GROWTH), _SLOWEST_POLL_S))
