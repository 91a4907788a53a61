"""What a request asks of the models: the work of a job.

Joins the registry, which has the models, with `recording.py`, which knows what is done with a recording. Knows neither
HTTP nor forms. Imports the heavy libraries (0.3 s).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from speech_common.errors import InvalidValue, ModelUnavailable, UnsupportedField
from speech_common.job import Progress
from speech_common.languages import DetectedLanguage
from speech_common.transcript import Transcript

from whisper_server import recording
from whisper_server.checkpoint import Facts
from whisper_server.faults import ModelError
from whisper_server.model import Model, is_want_of_memory
from whisper_server.options import Options
from whisper_server.registry import Registry
from whisper_server.settings import Settings

_log = logging.getLogger("whisper")


class Engine:
    """Does the work, in the thread that calls; any number of threads may."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings

    def run(self, model: str, file: BinaryIO, options: Options, progress: Progress) -> Transcript:
        """Write down what is said in `file` with the model of that name, as `Registry.resolve` gave it.

        Blocks. Raises what `recording.transcribe` and `Registry.lease` raise, or a FieldError for what the model's files
        lack.
        """
        with self._leased(model, progress) as leased:
            _refuse_what_lacks(
                leased.facts, detects=options.language is None, times_words=options.word_timestamps
            )
            return recording.transcribe(
                leased,
                file,
                options,
                progress,
                batch_size=self._settings.batch_size,
                max_audio_s=self._settings.max_audio_s,
            )

    def detect_language(self, model: str, file: BinaryIO, progress: Progress) -> DetectedLanguage:
        """Tell which language is spoken in `file`. Blocks and raises as `run` does."""
        with self._leased(model, progress) as leased:
            _refuse_what_lacks(leased.facts, detects=True)
            return recording.detect_language(leased, file, progress, max_audio_s=self._settings.max_audio_s)

    @contextmanager
    def _leased(self, name: str, progress: Progress) -> Iterator[Model]:
        """Use a model. A GPU that works no more fails the registry, and with it the process: only a new one gets it back.

        Raises ModelUnavailable for that, and for want of memory on the GPU, which passes.
        """
        with self._registry.lease(name, progress.check) as model:
            try:
                yield model
            except RuntimeError as exc:
                if model.has_lost_its_device():
                    cause = ModelError(f"the {model.model.device} device works no more: {exc}")
                    _log.error("event=device_lost model=%s cause=%r", name, str(cause))
                    self._registry.fail(cause)
                    raise ModelUnavailable(str(cause)) from exc
                if is_want_of_memory(exc):
                    raise ModelUnavailable(f"{exc}; a lower WHISPER_BATCH_SIZE takes less") from exc
                raise


def _refuse_what_lacks(facts: Facts, *, detects: bool, times_words: bool = False) -> None:
    if times_words and not facts.times_words:
        raise UnsupportedField(
            "timestamp_granularities",
            "this model cannot tell when a word is said, for its config.json has no alignment_heads",
        )
    if detects and not facts.tells_languages:
        raise InvalidValue(
            "language",
            "",
            "a language's code; this model cannot tell it by itself, for its config.json has no lang_ids",
        )
