"""Words are cut down to where their voice is."""

import numpy as np
import pytest
from speech_common.sound.voice import FRAME_S
from speech_common.transcript import Word
from whisperx_server.pauses import without_pauses

AROUND_S = 3 * FRAME_S


def likely(*parts):
    """How likely a voice is: seconds of each."""
    return np.concatenate([np.full(round(seconds / FRAME_S), value, np.float32) for seconds, value in parts])


def spans(words, heard):
    return [(word.start, word.end) for word in without_pauses(words, heard)]


SPEECH_PAUSE_SPEECH = likely((0.96, 1.0), (1.28, 0.1), (0.96, 1.0))


def test_word_that_begins_in_a_pause_begins_with_its_voice():
    [(start_s, end_s)] = spans([Word(" Eight", 1.2, 2.6)], SPEECH_PAUSE_SPEECH)
    assert (start_s, end_s) == pytest.approx((2.24 - AROUND_S, 2.6))


def test_word_that_ends_in_a_pause_ends_with_its_voice():
    [(start_s, end_s)] = spans([Word(" them.", 0.5, 2.0)], SPEECH_PAUSE_SPEECH)
    assert (start_s, end_s) == pytest.approx((0.5, 0.96 + AROUND_S))


def test_word_over_a_pause_is_where_most_of_its_voice_is():
    [(start_s, end_s)] = spans([Word(" Unless", 0.9, 2.8)], SPEECH_PAUSE_SPEECH)
    assert (start_s, end_s) == pytest.approx((2.24 - AROUND_S, 2.8))


def test_word_amid_speech_is_left_alone():
    words = [Word(" to", 0.2, 0.4), Word(" be", 0.4, 0.8)]
    assert list(without_pauses(words, SPEECH_PAUSE_SPEECH)) == words


def test_short_gap_of_a_voice_is_no_pause():
    stop = likely((0.48, 1.0), (0.16, 0.0), (0.48, 1.0))
    assert spans([Word(" spades,", 0.1, 1.0)], stop) == [(0.1, 1.0)]


@pytest.mark.parametrize("heard", [likely((2.0, 0.1)), np.zeros(1, np.float32)])
def test_word_without_any_voice_is_left_alone(heard):
    assert spans([Word(" you", 0.5, 0.9)], heard) == [(0.5, 0.9)]


def test_words_still_follow_each_other():
    words = [Word(" a", 0.8, 1.3), Word(" b", 1.3, 1.6), Word(" c", 1.6, 2.5)]
    times = [time for span in spans(words, SPEECH_PAUSE_SPEECH) for time in span]
    assert times == sorted(times)


def test_voice_ends_with_the_audio():
    assert spans([Word(" you", 0.0, 1.0)], np.ones(2, np.float32)) == [(0.0, 2 * FRAME_S)]
