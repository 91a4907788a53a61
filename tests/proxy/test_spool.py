"""The file of an upload that waits: what a slow disk does to it happens in threads."""

import asyncio
import os
import threading

from waiting import until

from autostart.proxy.spool import Spool, SpoolArea


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_file_is_let_go_without_waiting_for_the_disk(tmp_path):
    async def main():
        area, disk = SpoolArea(tmp_path, 100), threading.Event()
        spool = Spool(area)
        await spool.append(b"x" * 100)
        fd = spool._fd
        hung = [area.run(disk.wait) for _ in range(2)]
        spool.close()
        assert (is_open(fd), area.left_bytes, area.spools) == (True, 100, 0)
        disk.set()
        await asyncio.wait(hung)
        await until(lambda: not is_open(fd))
        area.close()

    asyncio.run(main())


def test_file_that_is_closed_last_is_let_go_too(tmp_path):
    async def main():
        area = SpoolArea(tmp_path, 100)
        spool = Spool(area)
        await spool.append(b"x")
        fd = spool._fd
        area.close()
        spool.close()
        assert not is_open(fd)

    asyncio.run(main())
