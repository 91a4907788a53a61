"""The library's model, made fit for a server: it can be interrupted, and hears minutes in little memory.

Owns what is overridden of the library; knows neither settings nor requests. Imports the heavy libraries (0.3 s).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray

from whisper_server.checkpoint import Facts

_BLOCK_FRAMES = 6_000  # a minute
_WINDOW_FRAMES = 3_000


class Model(WhisperModel):  # type: ignore[misc]  # the library is not typed
    """One model for all threads; which request a thread works for is the thread's own.

    `heard_bytes` is what its decoder keeps of one window (`Weights.heard_bytes`), `facts` what its files tell, and
    `streams` how many batches of one recording are decoded at once.
    """

    heard_bytes = 0
    streams = 1

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.facts = Facts(self.model.is_multilingual, tuple(super().supported_languages))
        self.feature_extractor = BlockwiseFeatures(**self.feat_kwargs)
        self._thread = threading.local()

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
    def checked_by(self, check: Callable[[], None]) -> Iterator[None]:
        """Within the context, call `check` in this thread before every window; what it raises ends the decoding."""
        self._thread.check = check
        try:
            yield
        finally:
            del self._thread.check

    def encode(self, features: NDArray[np.float32]) -> ctranslate2.StorageView:
        """Encode windows of 30 s. The library passes here for every window, silent ones included."""
        check = getattr(self._thread, "check", None)
        if check is not None:
            check()
        return super().encode(features)


def is_want_of_memory(exc: Exception) -> bool:
    """Tell whether the GPU has no room left: CTranslate2 has no class of its own for that (4.8)."""
    return "out of memory" in str(exc)


class BlockwiseFeatures(FeatureExtractor):  # type: ignore[misc]  # the library is not typed
    """The same log-mel spectrogram, a minute at a time: at once, an hour takes 2.5 GB."""

    def __call__(
        self, waveform: NDArray[np.float32], padding: int = 160, chunk_length: int | None = None
    ) -> NDArray[np.float32]:
        """Return `[mels, frames]`, a frame every 10 ms, of float32, mono, 16 kHz `[samples]`."""
        if chunk_length is not None:
            return super().__call__(waveform, padding, chunk_length)  # type: ignore[no-any-return]
        edge = self.n_fft // 2
        padded = np.pad(np.pad(waveform, (0, padding)), edge, mode="reflect")
        count = (len(padded) - self.n_fft) // self.hop_length
        window = np.hanning(self.n_fft + 1)[:-1].astype(np.float32)
        mel = np.empty((len(self.mel_filters), count), np.float32)
        for first in range(0, count, _BLOCK_FRAMES):
            last = min(first + _BLOCK_FRAMES, count)
            block = padded[first * self.hop_length : (last - 1) * self.hop_length + self.n_fft]
            frames = np.lib.stride_tricks.sliding_window_view(block, self.n_fft)[:: self.hop_length]
            power = np.abs(np.fft.rfft(frames * window).astype(np.complex64)) ** 2
            mel[:, first:last] = np.log10(np.maximum(self.mel_filters @ power.T, 1e-10))
        if count:
            np.maximum(mel, mel.max() - 8.0, out=mel)
        mel += 4.0
        mel /= 4.0
        return mel
