"""What looks wrong is looked at again, and what nobody said is left out."""

import numpy as np
import pytest
from hearing import piece_of, silence
from speech_common.sound.voice import FRAME, FRAME_S
from speech_common.sound.windows import Piece, Stretch
from whisper_server.guard import Doubt, Measures, doubt, is_invented, unheard_from

FINE = Measures(avg_logprob=-0.2, compression_ratio=1.4, no_speech_prob=0.01)
# 7 s of speech, a silence, and for those who speak again 7 s more.
SPEECH_S, SILENCE_S = 7.0, 10.0


def voices(*voiced_s):
    """A stretch whose parts, one of speech and one of none in turn, are so long."""
    parts = [np.full(int(s / FRAME_S), 0.9 * (1 - n % 2), np.float32) for n, s in enumerate(voiced_s)]
    likely = np.concatenate(parts)
    return Stretch([Piece(0, np.zeros(len(likely) * FRAME, np.float32), likely)])


ONCE, TWICE = voices(SPEECH_S, SILENCE_S), voices(SPEECH_S, SILENCE_S, SPEECH_S)
ALL = SPEECH_S + SILENCE_S + SPEECH_S


@pytest.mark.parametrize(
    ("measures", "expected"),
    [
        (FINE, None),
        (Measures(-0.2, 2.5, 0.01), Doubt.REPETITION),
        (Measures(-0.2, 2.5, 0.01, is_cut_short=True), Doubt.REPETITION),
        (Measures(-1.1, 1.4, 0.01), Doubt.IMPROBABLE),
        (Measures(-0.2, 1.4, 0.7), Doubt.NO_SPEECH),
        (Measures(-0.2, 1.4, 0.01, is_cut_short=True), Doubt.CUT_SHORT),
    ],
)
def test_text_that_looks_wrong_is_doubted(measures, expected):
    assert doubt(measures, [(0.0, SPEECH_S)], ONCE) == expected


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0.0, 7.0), (17.0, ALL)], None),
        ([(0.0, ALL)], None),
        ([], 0.0),
        ([(0.0, 7.0)], 7.0),
        ([(0.0, 3.0), (3.0, 6.8)], 6.8),
        ([(17.0, ALL)], 0.0),
        ([(0.0, 2.0), (5.0, 7.0), (17.0, ALL)], 2.0),
        ([(0.0, 7.0), (17.0, 20.0), (22.0, ALL)], 20.0),
    ],
)
def test_speech_without_words_is_found(spans, expected):
    assert unheard_from(spans, TWICE) == expected
    assert doubt(FINE, spans, TWICE) is (None if expected is None else Doubt.UNHEARD)


@pytest.mark.parametrize("spans", [[(0.5, 6.5)], [(0.0, 3.0), (3.5, 7.0)], [(0.0, 7.9)]])
def test_times_that_are_a_little_off_are_not_doubted(spans):
    assert doubt(FINE, spans, ONCE) is None


def test_words_where_nobody_speaks_are_invented():
    assert is_invented(" Thank you.", FINE, 9.0, 11.0, ONCE)
    assert not is_invented(" And Mr. John", FINE, 0.0, 1.0, ONCE)


def test_words_a_little_beside_a_voice_are_kept():
    assert not is_invented(" for them.", FINE, 7.3, 8.0, ONCE)


def test_long_text_that_the_model_is_sure_of_is_kept():
    text = " He was not an ill-disposed young man unless to be"
    stretch = Stretch([piece_of(silence(10), likely=0.0)])
    assert not is_invented(text, FINE, 1.0, 9.0, stretch)
    assert is_invented(text, Measures(-0.9, 1.4, 0.01), 1.0, 9.0, stretch)
    assert is_invented(text, Measures(-0.2, 1.4, 0.5), 1.0, 9.0, stretch)
    assert is_invented(text, Measures(-0.2, 3.0, 0.01), 1.0, 9.0, stretch)


def test_looking_for_doubts_changes_nothing():
    before = TWICE.likely.copy()
    doubt(FINE, [(0.0, 2.0)], TWICE)
    assert np.array_equal(before, TWICE.likely)
