"""The library's model, made fit for a server: it can be interrupted before every window.

Owns what is overridden of the library; knows neither settings nor requests. Imports the heavy libraries (0.3 s).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray

from whisper_server.checkpoint import Facts

_WINDOW_FRAMES = 3_000
# Fewer frames of a spectrogram are none to the decoder, which cannot find words in them.
_FEWEST_FRAMES = 2


class Model(WhisperModel):  # type: ignore[misc]  # the library is not typed
    """One model for all threads; which request a thread works for is the thread's own.

    `heard_bytes` is what its decoder keeps of one window (`Weights.heard_bytes`), `facts` what its files tell, and
    `streams` how many batches of one recording are decoded at once.
    """

    heard_bytes = 0
    streams = 1

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._thread = threading.local()
        self.facts = Facts(self.model.is_multilingual, tuple(super().supported_languages))
        self.feature_extractor = _Features(self._begin_window, **self.feat_kwargs)

    @property
    def supported_languages(self) -> list[str]:
        """Return the codes of the languages it knows. The library's own list has Cantonese for all."""
        return list(self.facts.languages)

    def try_out(self) -> None:
        """Encode a window of silence, and wait for the result. Raises RuntimeError where the device cannot do it."""
        silence = np.zeros((1, self.model.n_mels, _WINDOW_FRAMES), np.float32)
        self.model.encode(ctranslate2.StorageView.from_array(silence), to_cpu=True)

    def has_lost_its_device(self) -> bool:
        """Tell whether the GPU does no work any more, after it has failed once. Want of memory passes."""
        if self.model.device == "cpu":
            return False
        try:
            self.try_out()
        except RuntimeError as exc:
            return not is_want_of_memory(exc)
        return False

    @contextmanager
    def checked_by(self, check: Callable[[float], None]) -> Iterator[None]:
        """Within the context, call `check` in this thread before every window; what it raises ends the decoding.

        It is told when the window begins in the audio that `transcribe` was given, in seconds.
        """
        self._thread.check, self._thread.first = check, 0
        try:
            yield
        finally:
            del self._thread.check

    def encode(self, features: NDArray[np.float32]) -> ctranslate2.StorageView:
        """Encode windows of 30 s. The library passes here for every window, silent ones included."""
        check = getattr(self._thread, "check", None)
        if check is not None:
            check(self._thread.first / self.frames_per_second)
        return super().encode(features)

    def find_alignment(
        self,
        tokenizer: Any,
        text_tokens: Any,
        encoder_output: Any,
        num_frames: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Find the words in a window. The library passes here for every window whose words are to be timed."""
        frames = max(num_frames, _FEWEST_FRAMES)
        return super().find_alignment(tokenizer, text_tokens, encoder_output, frames, *args, **kwargs)

    def _begin_window(self, first: int) -> None:
        self._thread.first = first


def is_want_of_memory(exc: Exception) -> bool:
    """Tell whether the GPU has no room left: CTranslate2 has no class of its own for that (4.8)."""
    return "out of memory" in str(exc)


class _Features(FeatureExtractor):  # type: ignore[misc]  # the library is not typed
    """The same log-mel spectrogram, which tells where each window begins that is taken of it."""

    def __init__(self, begin: Callable[[int], None], **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._begin = begin

    def __call__(self, *args: object, **kwargs: object) -> NDArray[np.float32]:
        spectrogram = super().__call__(*args, **kwargs).view(_Spectrogram)
        spectrogram.begin = self._begin
        return spectrogram  # type: ignore[no-any-return]


class _Spectrogram(np.ndarray[tuple[int, ...], np.dtype[np.float32]]):
    """`[mels, frames]`, a frame every 10 ms."""

    begin: Callable[[int], None]

    def __getitem__(self, key: Any) -> Any:
        # As the library cuts a window, `[:, first:last]`.
        if isinstance(key, tuple) and isinstance(key[-1], slice) and key[-1].start is not None:
            self.begin(key[-1].start)
        return np.asarray(self)[key]
