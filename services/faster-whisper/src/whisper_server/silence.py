"""Tell invented words from spoken ones: Whisper makes "You" of silence.

Owns the doubt. Uses the voice detector that comes with the library, whose runtime (0.2 s to import) is only loaded
when there is a doubt.
"""

import numpy as np
from faster_whisper.vad import VadOptions, get_speech_timestamps
from numpy.typing import NDArray
from speech_common.audio import SAMPLE_RATE

# What is invented is short. Longer texts are not doubted: a detector is no judge of songs and whispers.
_DOUBTFUL_WORDS = 8
_AROUND_S = 1.0
# Far below the detector's default of 0.5: a word is only dropped where there is nothing like a voice.
_ANY_VOICE = VadOptions(threshold=0.2, min_speech_duration_ms=0)


def is_invented(text: str, samples: NDArray[np.float32], start_s: float, end_s: float) -> bool:
    """Say whether `text` is short, and no voice is in `samples` (16 kHz mono) from start to end, a second around."""
    if len(text.split()) > _DOUBTFUL_WORDS:
        return False
    first = max(0, int((start_s - _AROUND_S) * SAMPLE_RATE))
    around = samples[first : int((end_s + _AROUND_S) * SAMPLE_RATE)]
    return not len(around) or not get_speech_timestamps(around, _ANY_VOICE)
