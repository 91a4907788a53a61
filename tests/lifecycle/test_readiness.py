"""Readiness: what counts as an answer, on real sockets."""

import asyncio

import pytest
from waiting import LIMIT_S, until

from autostart.config import Readiness
from autostart.lifecycle.readiness import ReadinessCheck
from autostart.runtime.base import Endpoint, HealthResult


async def no_health_check():
    return None


def answering(*answers: bytes | None):
    """A server that gives one answer a connection, the last one for ever; None accepts and hangs."""
    left = list(answers)
    asked = []

    async def answer(reader, writer):
        now = left.pop(0) if len(left) > 1 else left[0]
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            if now is None:
                await reader.read()
            else:
                writer.write(now)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    return answer, asked


async def wait_for(rule: Readiness, serve, health=no_health_check, accepts_early=False, limit_s=LIMIT_S):
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    check = ReadinessCheck(rule, "whisper.test")
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(limit_s):
            await check.wait(Endpoint("127.0.0.1", port, accepts_early), health)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LOADING = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def test_path_is_asked_until_an_accepted_status_comes():
    serve, asked = answering(LOADING, LOADING, OK)
    asyncio.run(wait_for(Readiness(path="/health/ready"), serve))
    assert len(asked) == 3
    assert asked[0].startswith(b"GET /health/ready HTTP/1.1\r\nHost: whisper.test\r\n")


def test_statuses_that_are_accepted_are_configuration():
    serve, asked = answering(NOT_FOUND)
    asyncio.run(wait_for(Readiness(path="/", statuses=("200", "400-404")), serve))
    assert len(asked) == 1


def test_answer_without_an_end_of_line_is_no_answer_yet():
    serve, asked = answering(b"x" * 9000, OK)
    asyncio.run(wait_for(Readiness(path="/health"), serve))
    assert len(asked) == 2


def test_what_was_heard_last_is_kept_for_the_error():
    serve, asked = answering(NOT_FOUND)

    async def body():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        check = ReadinessCheck(Readiness(path="/health"), "whisper.test")
        async with server:
            endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
            waiting = asyncio.create_task(check.wait(endpoint, no_health_check))
            await until(lambda: len(asked) > 1)
            waiting.cancel()
            await asyncio.wait({waiting})
        return check.last_answer

    assert asyncio.run(body()) == "GET /health answered 404"


def test_endpoint_that_accepts_and_hangs_is_asked_again():
    serve, asked = answering(None, OK)
    asyncio.run(wait_for(Readiness(path="/", attempt_timeout="50ms"), serve))
    assert len(asked) >= 2


def test_endpoint_that_accepts_and_hangs_does_not_defeat_the_callers_limit():
    serve, _ = answering(None)
    with pytest.raises(TimeoutError):
        asyncio.run(wait_for(Readiness(path="/", attempt_timeout="1h"), serve, limit_s=0.1))


def test_interim_answers_are_passed_over():
    serve, _ = answering(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
    asyncio.run(wait_for(Readiness(path="/"), serve))


def test_garbage_is_not_an_answer():
    serve, asked = answering(b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 abc\r\n", OK)
    asyncio.run(wait_for(Readiness(path="/"), serve))
    assert len(asked) == 4


def test_connection_proves_nothing_where_something_in_between_accepts_early():
    def refusing_first(times: int):
        serve, _ = answering(NOT_FOUND)
        seen = []

        async def docker_proxy(reader, writer):
            seen.append(1)
            if len(seen) <= times:
                writer.close()
            else:
                await serve(reader, writer)

        return docker_proxy, seen

    serve, seen = refusing_first(3)
    asyncio.run(wait_for(Readiness(), serve, accepts_early=True))
    assert len(seen) == 4


def test_health_check_is_not_asked_beside_a_path_unless_always():
    asked = []

    async def health():
        asked.append(1)
        return HealthResult(len(asked) > 2)

    serve, _ = answering(OK)
    asyncio.run(wait_for(Readiness(path="/"), serve, health))
    assert len(asked) == 0
    asyncio.run(wait_for(Readiness(path="/", health_check="always"), serve, health))
    assert len(asked) == 3
