"""What is open without an end when `autostart serve` has to stop: each is told, or cut so that it shows."""

import asyncio
import signal

import aiohttp
import httpx
import pytest
from program import HOST, Gateway, running
from waiting import LIMIT_S


@pytest.fixture
def gateway(tmp_path):
    with running(Gateway(tmp_path, drainTimeout="0.2s")) as gateway:
        yield gateway


async def told(gateway: Gateway, end) -> tuple[int | None, str]:
    """Open a WebSocket, `end()`, and return the code and reason of the Close that comes."""
    url = f"http://127.0.0.1:{gateway.port}/socket"
    async with (
        asyncio.timeout(LIMIT_S),
        aiohttp.ClientSession() as session,
        session.ws_connect(url, headers={"Host": HOST}) as web_socket,
    ):
        assert (await web_socket.receive()).data == "hello"
        end()
        message = await web_socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        return message.data, message.extra


def test_open_websocket_is_told_at_the_drain_limit_that_the_service_restarts(gateway):
    assert asyncio.run(told(gateway, gateway.process.terminate)) == (1012, "autostart stops")
    assert gateway.process.wait(LIMIT_S) == 0
    assert "drain limit reached" in gateway.log.read_text()
    assert "Traceback" not in gateway.log.read_text()


def test_open_websocket_is_told_when_a_second_interrupt_cuts_the_wait(gateway):
    gateway.options["drainTimeout"] = "1h"
    gateway.write()
    assert gateway.cli("reload").returncode == 0

    def interrupt_twice():
        gateway.process.send_signal(signal.SIGINT)
        gateway.until(lambda: "draining for at most 3600 s" in gateway.log.read_text())
        gateway.process.send_signal(signal.SIGINT)

    assert asyncio.run(told(gateway, interrupt_twice)) == (1012, "autostart stops")
    assert gateway.process.wait(LIMIT_S) == 0


def end_while_reading(gateway: Gateway, lines) -> None:
    assert next(lines) == "data: 1"
    gateway.process.terminate()
    for _ in lines:
        pass


def test_event_stream_that_is_cut_at_the_drain_limit_does_not_look_complete(gateway):
    url = f"http://127.0.0.1:{gateway.port}/events"
    with (
        httpx.stream("GET", url, headers={"Host": HOST}, timeout=LIMIT_S) as answer,
        pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"),
    ):
        end_while_reading(gateway, answer.iter_lines())
    assert gateway.process.wait(LIMIT_S) == 0
