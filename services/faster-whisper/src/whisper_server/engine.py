"""The loaded model and the threads that use it.

Owns the loading thread and the worker threads; knows neither HTTP nor forms. Imports the heavy libraries (0.3 s).
The event loop only ever waits for their futures. States go one way, and the load future is the state:

| state   | the load ends well | the load fails | a request                       |
|---------|--------------------|----------------|---------------------------------|
| loading | ready              | failed         | waits, at most `load_wait_s`    |
| ready   | -                  | -              | waits its turn for a worker     |
| failed  | -                  | -              | ModelUnavailable, with the cause |
"""

import asyncio
import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

import faster_whisper.transcribe
from speech_common.audio import SAMPLE_RATE, check_audio, decode
from speech_common.errors import InvalidValue, ModelLoading, ModelUnavailable, UnsupportedField
from speech_common.transcript import Segment, Transcript, Word

from whisper_server import models
from whisper_server.model import Model
from whisper_server.settings import Settings
from whisper_server.silence import is_invented

_log = logging.getLogger("whisper")
_RETRY_AFTER_S = 5
# The model's window has 448 tokens, of which up to 223 go to the prompt or to what was said before. The library lets
# hotwords take all the rest, and then, without a word, there is no room left for a transcript.
_HOTWORD_TOKENS = 112
# Where no temperature is asked for, a decode that looks wrong is tried again hotter, as OpenAI's own code does.
_FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


class EngineState(StrEnum):
    """Whether the model can be used."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Options:
    """How one recording is transcribed. `language` None detects it; `temperature` None or 0 allows fallback."""

    task: str = "transcribe"
    language: str | None = None
    prompt: str | None = None
    hotwords: str | None = None
    temperature: float | None = None
    beam_size: int = 5
    vad_filter: bool = False
    word_timestamps: bool = False


class Engine:
    """One model, loaded in the background, used by `workers` threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._load: Future[Model] = Future()
        self._workers = ThreadPoolExecutor(settings.workers, thread_name_prefix="transcribe")

    def start_loading(self) -> None:
        """Begin to load, once. The thread is a daemon: a shutdown does not wait for a download."""
        threading.Thread(target=self._run_load, name="load-model", daemon=True).start()

    @property
    def state(self) -> EngineState:
        """Return where the load stands."""
        if not self._load.done():
            return EngineState.LOADING
        return EngineState.FAILED if self._load.exception() else EngineState.READY

    @property
    def failure(self) -> str | None:
        """Return why the load failed, or None."""
        cause = self._load.exception() if self._load.done() else None
        return str(cause) if cause else None

    async def wait_until_failed(self) -> None:
        """Return when the load has failed; wait for ever if it succeeds. Cancelling leaves the load alone."""
        try:
            await asyncio.shield(asyncio.wrap_future(self._load))
        except models.ModelError:
            return
        await asyncio.Event().wait()

    async def wait_until_loaded(self) -> None:
        """Wait for the load to end. Raises ModelLoading after `load_wait_s`, or ModelUnavailable."""
        try:
            async with asyncio.timeout(self._settings.load_wait_s):
                # Shielded: a caller that leaves must not undo the load for the others.
                await asyncio.shield(asyncio.wrap_future(self._load))
        except TimeoutError as exc:
            raise ModelLoading(self._settings.load_wait_s, _RETRY_AFTER_S) from exc
        except models.ModelError as exc:
            raise ModelUnavailable(str(exc)) from exc

    async def transcribe(self, file: BinaryIO, options: Options) -> Transcript:
        """Transcribe `file` when a worker is free.

        Raises ModelLoading, ModelUnavailable, UnreadableAudio, or a FieldError for a language or a translation that
        this model is not made for. Cancelling takes it out of the queue, or frees the worker at the next window of
        30 s; either way nobody uses `file` any more afterwards.
        """
        await self.wait_until_loaded()
        # Before queueing, so that a broken file is told at once and not after an hour of someone else's audio.
        self._refuse_what_the_model_lacks(options)
        await _to_its_end(asyncio.create_task(asyncio.to_thread(check_audio, file)))
        gone, decoded = threading.Event(), Future[None]()
        work = self._workers.submit(self._transcribe, file, options, gone, decoded)
        try:
            return await asyncio.wrap_future(work)
        finally:
            gone.set()  # only a cancelled call leaves the worker something to do, and nobody waits for that
            if not work.cancel():
                await asyncio.wait({asyncio.wrap_future(decoded)})

    def _refuse_what_the_model_lacks(self, options: Options) -> None:
        model = self._load.result()
        if options.task == "translate" and not model.model.is_multilingual:
            raise UnsupportedField("model", "it knows only English, and cannot translate")
        languages = model.supported_languages
        if options.language is not None and options.language not in languages:
            raise InvalidValue("language", options.language, f"this model knows only {', '.join(languages)}")
        if options.hotwords and len(model.hf_tokenizer.encode(options.hotwords)) > _HOTWORD_TOKENS:
            raise InvalidValue(
                "hotwords", options.hotwords, f"at most {_HOTWORD_TOKENS} tokens, some 80 words"
            )

    def _run_load(self) -> None:
        began = time.monotonic()
        try:
            model = models.load(self._settings)
        except models.ModelError as exc:
            _log.error("event=model_failed model=%s cause=%r", self._settings.model_name, str(exc))
            self._load.set_exception(exc)
        except BaseException as exc:  # noqa: BLE001 -- whatever it was, those who wait must be told
            _log.exception("event=model_failed model=%s", self._settings.model_name)
            self._load.set_exception(models.ModelError(f"unexpected {type(exc).__name__}; see the log"))
        else:
            _log.info(
                "event=model_loaded model=%s device=%s compute_type=%s threads=%d load_s=%.3f",
                self._settings.model_name,
                model.model.device,
                model.model.compute_type,
                self._settings.threads_per_worker,
                time.monotonic() - began,
            )
            self._load.set_result(model)

    def _transcribe(
        self, file: BinaryIO, options: Options, gone: threading.Event, decoded: Future[None]
    ) -> Transcript:
        """Decode, which is told to `decoded`, and transcribe, in a worker thread. Raises Abandoned once `gone` is set."""
        try:
            samples = decode(file, self._settings.max_audio_s, is_given_up=gone.is_set)
        finally:
            decoded.set_result(None)
        _log.debug("event=transcription_begins audio_s=%.2f", samples.size / SAMPLE_RATE)
        model = self._load.result()
        with model.abandoned_by(gone):
            segments, info = model.transcribe(
                samples,
                language=options.language,
                task=options.task,
                initial_prompt=options.prompt,
                hotwords=options.hotwords,
                temperature=options.temperature or list(_FALLBACK_TEMPERATURES),
                beam_size=options.beam_size,
                vad_filter=options.vad_filter,
                word_timestamps=options.word_timestamps,
            )
            spoken = [one for one in segments if not is_invented(one.text, samples, one.start, one.end)]
        return Transcript(
            task=options.task,
            language="en" if options.task == "translate" else info.language,
            duration_s=samples.size / SAMPLE_RATE,
            segments=tuple(_segment(number, segment) for number, segment in enumerate(spoken)),
        )


async def _to_its_end(task: asyncio.Task[None]) -> None:
    """Wait for `task`, also when cancelled: a thread goes on with what it was given."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, for a caller that has gone
        raise


def _segment(number: int, segment: faster_whisper.transcribe.Segment) -> Segment:
    """Copy a segment of the library, numbered from 0 as OpenAI does."""
    return Segment(
        id=number,
        start=segment.start,
        end=segment.end,
        text=segment.text,
        seek=segment.seek,
        tokens=tuple(segment.tokens),
        temperature=segment.temperature or 0.0,
        avg_logprob=segment.avg_logprob,
        compression_ratio=segment.compression_ratio,
        no_speech_prob=segment.no_speech_prob,
        words=tuple(Word(word.word, word.start, word.end, word.probability) for word in segment.words or ()),
    )
