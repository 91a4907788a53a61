"""The transcription server, served in a thread of the test, around an engine that says what the test lets it say."""

import asyncio
import io
import itertools
import queue
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

import av
import httpx
import uvloop
from speech_common.errors import UnknownModel
from speech_common.forms import STALLED_AFTER_S
from speech_common.jobs import Jobs
from speech_common.languages import LANGUAGE_NAMES, DetectedLanguage
from speech_common.loads import LoadTally
from speech_common.models.checkpoint import Facts
from speech_common.models.registry import ModelInfo, ModelState
from speech_common.server import Server
from speech_common.settings import ServerSettings
from speech_common.transcript import Segment, Transcript
from waiting import LIMIT_S, block_until
from whisper_server.api import create_app
from whisper_server.settings import Settings

PATH = "/v1/audio/transcriptions"


def wav(seconds: float = 0.1) -> bytes:
    samples = bytes(2 * int(16_000 * seconds))
    fmt = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    head = b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt " + struct.pack("<I", 16) + fmt
    return head + b"data" + struct.pack("<I", len(samples)) + samples


class Call:
    """One transcription: it says, step by step, what the test lets it say."""

    def __init__(self, model, file, options) -> None:
        self.model = model
        self.file = file
        self.options = options
        self.has_ended = threading.Event()
        self._steps: queue.SimpleQueue[Callable] = queue.SimpleQueue()
        self._said: list[Segment] = []
        self._result: Transcript | None = None

    def run(self, progress) -> Transcript:
        try:
            while self._result is None:
                step = self._steps.get(timeout=LIMIT_S)
                assert not self.file.closed
                progress.check()
                step(progress)
            return self._result
        finally:
            self.has_ended.set()

    def say(self, *texts: str, speaker: str | None = None) -> None:
        for text in texts:
            self._steps.put(lambda progress, text=text: self._say(progress, text, speaker))

    def known(self, **facts) -> None:
        self._steps.put(lambda progress: progress.known(**facts))

    def heard(self, until_s: float) -> None:
        self._steps.put(lambda progress: progress.heard(until_s))

    def look(self) -> None:
        """Let it come to its next check."""
        self._steps.put(lambda _: None)

    def fail(self, error: BaseException) -> None:
        self._steps.put(lambda _: self._raise(error))

    def end(self, language: str = "en") -> None:
        self._steps.put(lambda _: self._finish(language))

    def _say(self, progress, text: str, speaker: str | None) -> None:
        number = len(self._said)
        self._said.append(Segment(number, float(number), number + 1.0, text, speaker=speaker))
        progress.said(self._said[-1])

    def _finish(self, language: str) -> None:
        said = tuple(self._said)
        self._result = Transcript("transcribe", language, float(len(said)), said)

    def _raise(self, error: BaseException) -> None:
        raise error


class FakeEngine:
    """Hands out its calls, in order; or answers each at once where `text` is set."""

    def __init__(self, text: str | None = None) -> None:
        self.text = text
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()

    def run(self, model, file, options, progress) -> Transcript:
        if self.text is not None:
            return Transcript("transcribe", "en", 1.0, (Segment(0, 0.0, 1.0, self.text),))
        call = Call(model, file, options)
        self._calls.put(call)
        return call.run(progress)

    def detect_language(self, model, file, progress) -> DetectedLanguage:
        return DetectedLanguage("fr", 0.9, 1.0)

    def call(self) -> Call:
        """Wait for the next one to begin."""
        return self._calls.get(timeout=LIMIT_S)

    def has_no_more_calls(self) -> bool:
        return self._calls.empty()


class FakeRegistry:
    """One model, with an alias, which is ready."""

    state = ModelState.READY
    failure = None
    loaded_count = 1

    def names(self) -> list[ModelInfo]:
        return [ModelInfo("whisper-tiny", 0, is_default=True, aliases=("whisper-1",), is_loaded=True)]

    def resolve(self, name: str | None) -> str:
        if name not in (None, "whisper-tiny", "whisper-1"):
            raise UnknownModel(name, ["whisper-tiny", "whisper-1"])
        return "whisper-tiny"

    def facts(self, name: str) -> Facts:
        return Facts(is_multilingual=True, languages=tuple(LANGUAGE_NAMES))


class Served:
    """A server on a port of its own. Leave the context to end it, and what it still does."""

    settings: type[ServerSettings] = Settings
    create_app = staticmethod(create_app)

    def __init__(
        self, engine: FakeEngine, stalled_after_s: float = STALLED_AFTER_S, **environment: str
    ) -> None:
        self.engine = engine
        settings = self.settings.from_environment(
            {"WHISPER_MODEL_NAME": "whisper-tiny", "SHUTDOWN_TIMEOUT": "0", **environment}
        )
        self.jobs = Jobs(
            settings.workers,
            settings.queue_limit,
            keep_s=settings.job_keep_s,
            hold_s=settings.job_hold_s,
            queue_setting="WHISPER_QUEUE",
        )
        self.registry = FakeRegistry()
        self.app = self.create_app(
            settings, self.registry, engine, self.jobs, LoadTally(), stalled_after_s=stalled_after_s
        )
        self.server = Server(self.app, self.jobs, backlog=2048, shutdown_s=settings.shutdown_s)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.url = "http://{}:{}".format(*self.address)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="served")

    def __enter__(self) -> Self:
        self.http = httpx.Client(timeout=LIMIT_S)
        self._thread.start()
        block_until(lambda: self.server.started)
        return self

    def __exit__(self, *_) -> None:
        self.stop()
        self.http.close()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            await self.server.serve(sockets=[self._listener])

        uvloop.run(serve())

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does."""
        self.server.should_exit = True

    def get(self, path: str, **kwargs) -> httpx.Response:
        return self.http.get(self.url + path, **kwargs)

    def delete(self, path: str, **kwargs) -> httpx.Response:
        return self.http.delete(self.url + path, **kwargs)

    def post(self, data=None, *, path: str = PATH, file: bytes | None = None, **kwargs) -> httpx.Response:
        files = {"file": io.BytesIO(wav() if file is None else file)}
        return self.http.post(self.url + path, data=data, files=files, **kwargs)

    def submit(self, data=None, prefer: str = "respond-async", **kwargs) -> httpx.Response:
        return self.post(data, headers={"prefer": prefer, **kwargs.pop("headers", {})}, **kwargs)

    def beside(self, call: Callable, *args, **kwargs) -> "Beside":
        """Make a call in a thread of its own."""
        return Beside(lambda: call(*args, **kwargs))


class Beside:
    """A call in a thread of its own."""

    def __init__(self, call: Callable) -> None:
        self._call = call
        self._outcome: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._outcome.put((self._call(), None))
        except BaseException as exc:  # noqa: BLE001 -- it is raised where the outcome is asked for
            self._outcome.put((None, exc))

    def outcome(self):
        result, error = self._outcome.get(timeout=LIMIT_S)
        if error is not None:
            raise error
        return result


def tiled_speech(recording: bytes, count: int) -> bytes:
    """Return `count` times a recording, in some 4 kB a second and without a length in any header."""
    once = io.BytesIO()
    with av.open(io.BytesIO(recording)) as source, av.open(once, "w", "adts") as target:
        stream = target.add_stream("aac", rate=16_000, layout="mono", bit_rate=32_000)
        for frame in itertools.chain(source.decode(audio=0), [None]):
            target.mux(stream.encode(frame))
    return once.getvalue() * count


def form_request(file: bytes, *headers: str, **fields: str) -> bytes:
    """Return the bytes of a whole request with this file."""
    parts = b"".join(
        f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="upload"\r\n\r\n'
    body = parts + head + file + b"\r\n--b--\r\n"
    lines = [
        f"POST {PATH} HTTP/1.1",
        "host: localhost",
        "content-type: multipart/form-data; boundary=b",
        f"content-length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
