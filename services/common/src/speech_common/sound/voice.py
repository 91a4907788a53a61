"""Tell where in a recording there is a voice, with the detector that comes with the library (Silero VAD 6).

Owns the use of the detector, whose runtime (0.2 s to import) is loaded on first use. Knows no models and no requests.
Audio is float32, mono, 16 kHz `[samples]`; the detector looks at frames of 32 ms. A second of audio takes it 2 ms.
"""

from collections import deque

import numpy as np
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray

from speech_common.sound.audio import SAMPLE_RATE

FRAME = 512
FRAME_S = FRAME / SAMPLE_RATE
_CONTEXT = 64
_STATE = (1, 1, 128)
# Softer than this the detector hears nothing, and Whisper still writes it down: it is heard louder. By the loudest of
# the last 8 blocks (32 s of a recording), so that the pauses of loud speech are not.
_SOFT = 0.05
_REMEMBERED = 8
# Over this many frames (0.26 s) a voice stays likely. On 5 minutes each of silence, white, pink and brown noise, hum
# with harmonics and a tone, at levels from 1e-4 to clipping, the mean rose to 0.25, and to 0.40 in the first seconds of
# a stretch; on speech, soft and noisy too, to 0.86 and more (faster-whisper 1.2.1).
_SMOOTH = 8
_ANY_VOICE = 0.45


class Detector:
    """Hears a recording in order, block by block, and keeps what it heard in mind."""

    def __init__(self) -> None:
        # Not the library's own call: it starts anew each time, and writes into its input.
        self._session = get_vad_model().session
        self._h = self._c = np.zeros(_STATE, np.float32)
        self._before = np.zeros(_CONTEXT, np.float32)
        self._loudest: deque[float] = deque(maxlen=_REMEMBERED)

    def hear(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how likely a voice is (0 to 1) in each of the next frames; only the last of all may not be full."""
        frames = self._loud_enough(np.pad(samples, (0, -samples.size % FRAME))).reshape(-1, FRAME)
        if not len(frames):
            return np.empty(0, np.float32)
        contexts = np.vstack([self._before, frames[:-1, -_CONTEXT:]])
        self._before = frames[-1, -_CONTEXT:].copy()
        heard = {"input": np.hstack([contexts, frames]), "h": self._h, "c": self._c}
        likely, self._h, self._c = self._session.run(None, heard)
        return np.asarray(likely, np.float32).reshape(-1)

    def _loud_enough(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        self._loudest.append(float(np.abs(samples).max(initial=0.0)))
        loudest = max(self._loudest)
        return samples * np.float32(_SOFT / loudest) if 0.0 < loudest < _SOFT else samples


def any_voice(likely: NDArray[np.float32]) -> bool:
    """Say whether there may be a voice anywhere in these frames: only what is surely none gives False."""
    if not len(likely):
        return False
    window = np.ones(min(_SMOOTH, len(likely)), np.float32)
    return bool(np.convolve(likely, window / len(window), "valid").max() >= _ANY_VOICE)
