"""Tell what a model made up, or left out, from what was said.

Owns the doubts: which chunk is worth a second look, and which words nobody spoke. Decodes nothing itself.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from speech_common.sound.voice import FRAME_S
from speech_common.sound.windows import Stretch

# As OpenAI's own code has them.
_REPETITIVE = 2.4
_IMPROBABLE = -1.0
_NO_SPEECH = 0.6
# What is invented of silence ("You", "Thank you.") is short, or the model itself doubts it.
_DOUBTFUL_WORDS = 8
_DOUBTFUL_LOGPROB = -0.7
_DOUBTFUL_NO_SPEECH = 0.3
_AROUND_S = 1.0
# Speech that no segment covers. Segments' times are off by some tenths of a second.
_SPEECH = 0.5
IMPRECISION_S = 0.3
_MUCH_S = 0.5


class Doubt(StrEnum):
    """Why a chunk is decoded again."""

    REPETITION = "repetition"
    IMPROBABLE = "improbable"
    NO_SPEECH = "no_speech"
    CUT_SHORT = "cut_short"
    UNHEARD = "unheard"


@dataclass(frozen=True, slots=True)
class Measures:
    """What a decoder says of its own words. `is_cut_short` where it had to stop for lack of room."""

    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    is_cut_short: bool = False


def doubt(measures: Measures, spans: Iterable[tuple[float, float]], stretch: Stretch) -> Doubt | None:
    """Return what looks wrong with the text of a chunk, or None. `spans` are its segments' times within it, in s."""
    if measures.compression_ratio > _REPETITIVE:
        return Doubt.REPETITION
    if measures.avg_logprob < _IMPROBABLE:
        return Doubt.IMPROBABLE
    if measures.no_speech_prob > _NO_SPEECH:
        return Doubt.NO_SPEECH
    if measures.is_cut_short:
        return Doubt.CUT_SHORT
    if unheard_from(spans, stretch) is not None:
        return Doubt.UNHEARD
    return None


def unheard_from(spans: Iterable[tuple[float, float]], stretch: Stretch) -> float | None:
    """Return up to when in a stretch, in s, the words are before the first speech that has none; None without such."""
    speaks = stretch.likely >= _SPEECH
    until_s = first_s = 0.0
    for start_s, end_s in (*spans, (stretch.duration_s + 1.0, math.inf)):
        wordless = speaks[int(first_s / FRAME_S) : int(max(start_s - IMPRECISION_S, 0.0) / FRAME_S)]
        if np.count_nonzero(wordless) * FRAME_S > _MUCH_S:
            return until_s
        until_s = max(until_s, end_s)
        first_s = until_s + IMPRECISION_S
    return None


def is_invented(text: str, measures: Measures, start_s: float, end_s: float, stretch: Stretch) -> bool:
    """Say whether a segment is doubtful and no voice is in the stretch from start to end, a second around."""
    if (
        len(text.split()) > _DOUBTFUL_WORDS
        and measures.avg_logprob > _DOUBTFUL_LOGPROB
        and measures.no_speech_prob < _DOUBTFUL_NO_SPEECH
        and measures.compression_ratio < _REPETITIVE
    ):
        return False
    return not stretch.may_speak(start_s - _AROUND_S, end_s + _AROUND_S)
