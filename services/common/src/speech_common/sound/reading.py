"""One recording on its way through the decoder, for as long as somebody waits for it."""

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from speech_common.job import Progress
from speech_common.sound.audio import SAMPLE_RATE, decoded_blocks
from speech_common.sound.windows import Stretch


class Reading:
    """A file on its way through the decoder, and how far that has come."""

    def __init__(self, file: BinaryIO, progress: Progress, max_audio_s: float) -> None:
        self._file = file
        self._progress = progress
        self._max_audio_s = max_audio_s
        self._samples = 0

    @property
    def until_s(self) -> float:
        """Return how far into the recording it has come."""
        return self._samples / SAMPLE_RATE

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode it block by block, float32, mono, 16 kHz. Raises UnreadableAudio and its kinds, or what `check` raises."""
        for block in decoded_blocks(self._file, self._max_audio_s):
            self._progress.check()
            self._samples += block.size
            yield block


def with_a_voice(stretches: Iterable[Stretch], progress: Progress) -> Iterator[Stretch]:
    """Leave out the stretches of a recording in which there surely is no voice. Raises what `check` raises."""
    for stretch in stretches:
        progress.check()
        if stretch.may_speak():
            yield stretch
