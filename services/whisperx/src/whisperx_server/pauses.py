"""Take words out of the pauses beside them. Pure; times are seconds from the start of a stretch.

By a decoder's attention, the first word after a pause often begins in it: of 24 first words of utterances, joined with
pauses of up to 2 s, 9 began over 0.3 s away from their voice (0.8 s at most), and none after this, with 0.13 s at most
(whisper-base). The detector of voices knows better, to its frames of 32 ms.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from speech_common.sound.voice import FRAME_S
from speech_common.transcript import Word

_VOICE = 0.5
# So much around a voice is not taken for a pause: the detector hears soft consonants late.
_AROUND = 3


def without_pauses(words: Iterable[Word], likely: NDArray[np.float32]) -> Iterator[Word]:
    """Yield each word cut down to where most of its voice is; one without any voice as it is.

    `likely` tells of each frame of the stretch how likely a voice is.
    """
    voices = _voices(likely)
    for word in words:
        parts = [(max(word.start, first), min(word.end, last)) for first, last in voices]
        start, end = max(parts, key=lambda part: part[1] - part[0], default=(0.0, 0.0))
        yield replace(word, start=start, end=end) if start < end else word


def _voices(likely: NDArray[np.float32]) -> Sequence[tuple[float, float]]:
    """Return from when to when there are voices."""
    near = sliding_window_view(np.pad(likely >= _VOICE, _AROUND), 2 * _AROUND + 1).any(axis=1)
    changes = np.flatnonzero(np.diff(np.concatenate([[False], near, [False]])))
    return [(float(first) * FRAME_S, float(last) * FRAME_S) for first, last in changes.reshape(-1, 2)]
