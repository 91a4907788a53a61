"""Who leaves takes his upload along only once nobody reads it any more."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from waiting import LIMIT_S, until
from whisper_server import engine as module
from whisper_server.engine import Engine, Options
from whisper_server.settings import Settings


@pytest.mark.parametrize("reads", ["check_audio", "decode"])
def test_upload_is_in_use_until_the_thread_that_reads_it_is_done(monkeypatch, reads):
    begun, may_end = threading.Event(), threading.Event()

    def read(*_, **__) -> None:
        begun.set()
        may_end.wait(LIMIT_S)

    monkeypatch.setattr(module, "check_audio", lambda _: None)
    monkeypatch.setattr(module, reads, read)

    async def main() -> None:
        engine = Engine(Settings.from_environment({}))
        engine._load.set_result(SimpleNamespace(supported_languages=["en"]))
        call = asyncio.create_task(engine.transcribe(None, Options()))
        await until(begun.is_set)
        call.cancel()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not call.done()
        may_end.set()
        await asyncio.wait({call}, timeout=LIMIT_S)
        assert call.cancelled()

    asyncio.run(main())
