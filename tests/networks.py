"""Two machines with a cable between them, as network namespaces; for the tests that pull it out.

The namespaces have no names, so they end with the threads and sockets in them, also where a test is killed.
"""

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import pytest

T = TypeVar("T")

HERE, THERE = "198.18.0.1", "198.18.0.2"
"""Addresses for tests of networks, RFC 2544."""
_CLONE_NEWNET = 0x40000000


def _begin() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no network namespace")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


class Machine:
    """A thread in a network of its own: sockets that are made in it stay there, whoever uses them then."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, initializer=_begin)
        self.thread_id = self.run(threading.get_native_id)

    def run(self, function: Callable[..., T], *arguments: object) -> T:
        return self._thread.submit(function, *arguments).result()

    def ip(self, words: str) -> None:
        self.run(lambda: subprocess.run(["ip", *words.split()], check=True))

    def close(self) -> None:
        self._thread.shutdown()


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Make the machine at HERE and that at THERE; skip the test, or fail it where AUTOSTART_REQUIRE_NETNS=1 asks for it."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        why = "network namespaces need root and iproute2"
        if os.environ.get("AUTOSTART_REQUIRE_NETNS") == "1":
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    here, there = Machine(), Machine()
    try:
        here.ip(f"link add cable type veth peer name cable netns {there.thread_id}")
        for machine, address in ((here, HERE), (there, THERE)):
            machine.ip(f"addr add {address}/30 dev cable")
            machine.ip("link set cable up")
        yield here, there
    finally:
        here.close()
        there.close()


def pull_out_the_cable(machine: Machine) -> None:
    """Let nothing leave or reach `machine` any more: nobody hears that a connection ends."""
    machine.ip("link set cable down")
