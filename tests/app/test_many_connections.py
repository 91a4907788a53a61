"""More connections than there may be open files: some are refused, the others go on, the log says so."""

import resource
import socket
import threading

import httpx
from program import Gateway, running
from waiting import LIMIT_S


def test_connections_beyond_the_limit_of_open_files_are_refused_and_nobody_else_notices(tmp_path):
    answers = []
    with running(Gateway(tmp_path, headerTimeout=600)) as gateway:
        request = threading.Thread(target=lambda: answers.append(gateway.get(gateway.slow).text))
        request.start()
        gateway.until(gateway.is_in_use)
        limits = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (64, limits[1]))
        slow = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(200)]
        slow[-1].settimeout(LIMIT_S)
        assert slow[-1].recv(1) == b""
        assert gateway.is_in_use(), "files are left for the admin socket"
        gateway.let_go()
        request.join()
        assert answers == ["slow"]
        for connection in slow:
            connection.close()
        gateway.until(lambda: answers_again(gateway))
        assert gateway.log.read_bytes().count(b"too many connections") == 1


def answers_again(gateway: Gateway) -> bool:
    try:
        return gateway.get().status_code == 200
    except httpx.TransportError:
        return False
