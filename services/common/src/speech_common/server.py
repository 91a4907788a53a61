"""The web server, and how it ends: whoever still waits is told so, instead of finding the connection closed.

Knows uvicorn and the jobs.
"""

import socket

import uvicorn
from starlette.types import ASGIApp

from speech_common.jobs import Jobs
from speech_common.wire import HttpProtocol

# Longer than a gateway keeps idle connections to reuse them: closing first would break its next request.
_KEEP_ALIVE_S = 75
# For what is left to send when all jobs have ended.
_LAST_ANSWERS_S = 2
# Who lost its network while it waits for an answer is missed within 2 minutes.
_TCP_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)


class Server(uvicorn.Server):
    """Uvicorn's, for one application and its jobs. After SIGTERM it ends in at most `shutdown_s` and 2 s."""

    def __init__(self, app: ASGIApp, jobs: Jobs, *, backlog: int, shutdown_s: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=backlog,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_LAST_ANSWERS_S,
            )
        )
        self._jobs = jobs
        self._shutdown_s = shutdown_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept; on Linux the connections of a socket have its options."""
        for listener in sockets or ():
            for option in _TCP_KEEP_ALIVE:
                listener.setsockopt(*option)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all jobs while it still listens, so that who comes now is refused properly; then close."""
        await self._jobs.close(self._shutdown_s)
        await super().shutdown(sockets)
