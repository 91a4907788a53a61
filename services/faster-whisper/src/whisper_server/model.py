"""The library's model, which tells where each of its windows begins. Imports the heavy libraries (0.3 s)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray
from speech_common.models.served import Served

# Fewer frames of a spectrogram are none to the decoder, which cannot find words in them.
_FEWEST_FRAMES = 2


class Model(Served, WhisperModel):  # type: ignore[misc]  # the library is not typed
    """One model for all threads. `check` of `checked_by` is told when each window begins."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.feature_extractor = _Features(self._begin_window, **self.feat_kwargs)

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
