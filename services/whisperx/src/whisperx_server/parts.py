"""The parts of the engine that need torch, each imported and loaded when it is first asked for. Imports nothing heavy."""

# ruff: noqa: PLC0415 -- see above

from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from speech_common.models.served import Served
from speech_common.sound.windows import Stretch
from speech_common.transcript import Word

from whisperx_server.options import Options
from whisperx_server.said import Heard
from whisperx_server.settings import Settings
from whisperx_server.speakers import Turn, choice

if TYPE_CHECKING:
    from whisperx_server.alignment import Aligner, Aligners


class TorchParts:
    """whisperx itself, and what tells speakers apart."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._aligners: Aligners | None = None
        self._lock = Lock()
        self.diarizer = choice.make(
            settings.diarization,
            token=settings.hf_token,
            model_dir=settings.diarization_model,
            device=settings.device,
            downloads_allowed=settings.downloads != "none",
        )

    def hear(
        self,
        model: Served,
        group: Sequence[Stretch],
        options: Options,
        *,
        language: str,
        times_words: bool,
        check: Callable[[], None],
    ) -> list[Heard]:
        """Write down what is said in stretches, decoded as one batch."""
        from whisperx_server import asr

        return asr.hear(
            model,
            group,
            language=language,
            task=options.task,
            prompt=options.prompt,
            hotwords=options.hotwords,
            beam_size=options.beam_size,
            times_words=times_words,
            check=check,
        )

    def aligner(self, language: str, check: Callable[[], None]) -> "Aligner | None":
        """Return what aligns that language; None where nothing can be had for it."""
        from whisperx_server.alignment import Aligners

        with self._lock:
            if self._aligners is None:
                self._aligners = Aligners(
                    self._settings.align_models_dir,
                    device=self._settings.device,
                    downloads_allowed=self._settings.downloads != "none",
                )
        return self._aligners.find(language, check)

    def assign(self, turns: Sequence[Turn], words: Sequence[Word]) -> list[str | None]:
        """Say who speaks each of the words."""
        from whisperx_server.assignment import by_whisperx

        return by_whisperx(turns, words)
