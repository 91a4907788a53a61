"""TCP's keepalive, for both sides: a peer that is dead is found also where nothing is sent for hours.

Imports nothing of ours.
"""

import asyncio
import socket

OPTIONS = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 15, socket.TCP_KEEPCNT: 4}
"""Seconds without a byte until the peer's kernel is asked, seconds between that, and how often (Linux: 2 hours)."""


def keep_asking(transport: asyncio.BaseTransport) -> None:
    """Let the kernel ask the peer's kernel while nothing comes, and break a connection on which none answers."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in OPTIONS.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
