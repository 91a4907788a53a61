"""What a request asks of the models: the work of a job.

Joins the registry, which has the models, with `recording.py`, which knows what is done with a recording. Knows neither
HTTP nor forms. Imports the heavy libraries (0.3 s).
"""

from typing import BinaryIO

from speech_common.job import Progress
from speech_common.languages import DetectedLanguage
from speech_common.models.lease import leased, refuse_what_lacks
from speech_common.models.registry import Registry
from speech_common.sound.language import detect_language
from speech_common.transcript import Transcript

from whisper_server import recording
from whisper_server.model import Model
from whisper_server.options import Options
from whisper_server.settings import Settings


class Engine:
    """Does the work, in the thread that calls; any number of threads may."""

    def __init__(self, registry: Registry[Model], settings: Settings) -> None:
        self._registry = registry
        self._settings = settings

    def run(self, model: str, file: BinaryIO, options: Options, progress: Progress) -> Transcript:
        """Write down what is said in `file` with the model of that name, as `Registry.resolve` gave it.

        Blocks. Raises what `recording.transcribe` and `leased` raise, or a FieldError for what the model's files lack.
        """
        with leased(self._registry, model, progress) as whisper:
            refuse_what_lacks(
                whisper.facts, detects=options.language is None, times_words=options.word_timestamps
            )
            return recording.transcribe(
                whisper,
                file,
                options,
                progress,
                batch_size=self._settings.batch_size,
                max_audio_s=self._settings.max_audio_s,
            )

    def detect_language(self, model: str, file: BinaryIO, progress: Progress) -> DetectedLanguage:
        """Tell which language is spoken in `file`. Blocks and raises as `run` does."""
        with leased(self._registry, model, progress) as whisper:
            refuse_what_lacks(whisper.facts, detects=True)
            return detect_language(whisper, file, progress, max_audio_s=self._settings.max_audio_s)
