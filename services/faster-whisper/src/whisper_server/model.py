"""The library's model, made fit for a server: it can be interrupted, and hears an hour in little memory.

Owns what is overridden of the library; knows neither settings nor requests. Imports the heavy libraries (0.3 s).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray

_BLOCK_FRAMES = 6_000  # a minute


class Abandoned(Exception):
    """Nobody waits for the transcript any more."""


class Model(WhisperModel):  # type: ignore[misc]  # the library is not typed
    """One model for all threads; which request a thread works for is the thread's own."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.feature_extractor = BlockwiseFeatures(**self.feat_kwargs)
        self._thread = threading.local()

    @contextmanager
    def abandoned_by(self, gone: threading.Event) -> Iterator[None]:
        """Within the context, raise Abandoned in this thread at the next window once `gone` is set."""
        self._thread.gone = gone
        try:
            yield
        finally:
            del self._thread.gone

    def encode(self, features: NDArray[np.float32]) -> ctranslate2.StorageView:
        """Encode one window of 30 s. The library passes here for every window, silent ones included."""
        gone = getattr(self._thread, "gone", None)
        if gone is not None and gone.is_set():
            raise Abandoned
        return super().encode(features)


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
