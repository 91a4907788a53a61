"""Who leaves takes his work along, and his upload only once nobody reads it any more."""

import asyncio
import threading

import pytest
from speech_common.presence import EventStream, in_thread, while_connected
from starlette.requests import ClientDisconnect, Request
from waiting import LIMIT_S, until


class Client:
    """A client whose body has come, and who may leave."""

    def __init__(self):
        self.leaves = asyncio.Event()
        self.sent = []

    async def receive(self):
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    @property
    def request(self):
        return Request({"type": "http", "headers": []}, self.receive)


async def turn_the_loop():
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.mark.parametrize("cancels", [1, 2, 5])
def test_thread_is_waited_for_however_often_its_caller_is_cancelled(cancels):
    begun, may_end = threading.Event(), threading.Event()

    def read():
        begun.set()
        may_end.wait(LIMIT_S)

    async def main():
        client = Client()
        call = asyncio.create_task(while_connected(client.request, in_thread(read)))
        await until(begun.is_set)
        for _ in range(cancels):
            call.cancel()
            await turn_the_loop()
            assert not call.done()
        may_end.set()
        await asyncio.wait({call}, timeout=LIMIT_S)
        assert call.cancelled()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_thread_is_waited_for_when_the_client_leaves():
    begun, may_end = threading.Event(), threading.Event()

    def read():
        begun.set()
        may_end.wait(LIMIT_S)
        raise ValueError("nobody hears of it")

    async def main():
        client = Client()
        call = asyncio.create_task(while_connected(client.request, in_thread(read)))
        await until(begun.is_set)
        client.leaves.set()
        await turn_the_loop()
        assert not call.done()
        may_end.set()
        with pytest.raises(ClientDisconnect):
            await call

    asyncio.run(main())


def test_what_the_thread_returns_and_raises_is_passed_on():
    async def main():
        assert await in_thread(lambda: 5) == 5
        with pytest.raises(ZeroDivisionError):
            await in_thread(lambda: 1 // 0)

    asyncio.run(main())


@pytest.mark.parametrize("ends", ["end", "leave", "cancel", "fail", "cancel_at_once"])
def test_stream_calls_its_end_once_however_it_ends(ends):
    async def main():
        client, go_on, closed, ended = Client(), asyncio.Event(), [], []

        async def events():
            try:
                yield b"data: 1\n\n"
                await go_on.wait()
                if ends == "fail":
                    raise ValueError("no more")
            finally:
                closed.append(True)

        stream = EventStream(events(), lambda: ended.append(True))
        call = asyncio.create_task(stream({"type": "http"}, client.receive, client.send))
        if ends != "cancel_at_once":
            await until(lambda: len(client.sent) == 2)
            assert (closed, ended) == ([], [])
        if ends == "leave":
            client.leaves.set()
        elif ends.startswith("cancel"):
            await asyncio.sleep(0)
            call.cancel()
        go_on.set() if ends in ("end", "fail") else None
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        expected = {"end": type(None), "leave": ClientDisconnect, "fail": ValueError}
        assert type(outcome) is expected.get(ends, asyncio.CancelledError)
        assert ended == [True]
        assert closed == [True]
        assert (client.sent[-1:] == [{"type": "http.response.body", "body": b"", "more_body": False}]) == (
            ends == "end"
        )
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
