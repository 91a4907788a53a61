"""Recordings are cut at silences, in bounded memory, and times find their way back."""

import tracemalloc

import numpy as np
import pytest
from hearing import RATE, blocks, floats_of, piece_of, silence, stretch_of
from speech_common.sound.detection import VoiceDetection
from speech_common.sound.voice import FRAME, FRAME_S, Detector, any_voice
from speech_common.sound.windows import Piece, Stretch, best_cut, first_speech, heard, speech, stretches


@pytest.fixture(scope="module")
def spoken():
    """38 s of speech with short pauses."""
    names = ("austen-0870", "austen-0880", "austen-0890", "two-speakers")
    samples = np.concatenate([floats_of(name) for name in names])
    return samples[: len(samples) // FRAME * FRAME]


def likely_in(*frames):
    """Frames in which a voice is surely there (True) or surely not."""
    return np.concatenate([np.full(count, 0.9 if voice else 0.1, np.float32) for voice, count in frames])


def test_every_sample_is_in_exactly_one_stretch(spoken):
    long = np.concatenate([spoken, spoken, spoken[:-100]])
    cut = list(stretches(heard(blocks(long)), 30, 14))
    assert np.array_equal(np.concatenate([stretch.samples for stretch in cut]), long)
    ends = [stretch.end_s for stretch in cut]
    assert [0.0, *ends[:-1]] == [stretch.start_s for stretch in cut]
    assert ends[-1] == pytest.approx(len(long) / RATE)


def test_what_was_heard_stays_with_the_samples(spoken):
    at_once = Detector().hear(spoken)
    cut = list(stretches(heard(blocks(spoken)), 10, 5))
    assert len(cut) > 3
    assert np.allclose(np.concatenate([stretch.likely for stretch in cut]), at_once, atol=1e-3)
    assert all(len(stretch.likely) * FRAME == len(stretch.samples) for stretch in cut)


def test_stretch_is_no_longer_than_asked_and_ends_where_it_was_searched(spoken):
    cut = list(stretches(heard(blocks(np.tile(spoken, 3))), 30, 14))
    assert all(16 - FRAME_S <= stretch.duration_s <= 30 for stretch in cut[:-1])


def test_seams_are_in_silences(spoken):
    for stretch in list(stretches(heard(blocks(np.tile(spoken, 3))), 30, 14))[:-1]:
        assert stretch.likely[-2:].max() < 0.5


def test_the_last_long_silence_is_taken():
    assert 90 < best_cut(likely_in((True, 20), (False, 40), (True, 30), (False, 30), (True, 30))) < 120


def test_long_silence_is_preferred_to_a_later_short_one():
    assert 20 < best_cut(likely_in((True, 20), (False, 30), (True, 30), (False, 4), (True, 30))) < 50


def test_without_a_silence_the_cut_is_where_a_voice_is_least_likely():
    likely = np.full(100, 0.9, np.float32)
    likely[70] = 0.4
    assert best_cut(likely) == 70


def test_little_is_read_ahead(spoken):
    read = 0

    def counted():
        nonlocal read
        for block in blocks(np.tile(spoken, 4)):
            read += len(block)
            yield block

    next(stretches(heard(counted()), 30, 14))
    assert read <= 35 * RATE


def test_stretch_that_was_passed_on_is_not_kept():
    """A caller that drops a stretch has its memory back, not only when it asks for the next."""
    size = len(silence(4))
    tracemalloc.start()
    try:
        cut = stretches((piece_of(silence(4), n * size, likely=0.0) for n in range(40)), 60, 20)
        passed_on_bytes = next(cut).samples.nbytes
        assert tracemalloc.get_traced_memory()[0] < passed_on_bytes / 2
    finally:
        tracemalloc.stop()


def test_sparse_speech_does_not_keep_what_is_around_it():
    frames = likely_in((False, 900), (True, 1), (False, 99))
    tracemalloc.start()
    try:
        pieces = (piece_of(silence(FRAME_S * 1000), n * 1000 * FRAME) for n in range(20))
        sparse = (Piece(piece.first, piece.samples, frames) for piece in pieces)
        kept = list(speech(sparse, VoiceDetection(prefix_padding_ms=0)))
        assert len(kept) == 20
        assert tracemalloc.get_traced_memory()[0] < 20 * 10 * FRAME * 4
    finally:
        tracemalloc.stop()


def test_detector_hears_the_same_in_blocks_as_at_once(spoken):
    at_once = Detector().hear(spoken)
    detector = Detector()
    in_blocks = np.concatenate([detector.hear(block) for block in blocks(spoken, 100 * FRAME)])
    assert np.allclose(at_once, in_blocks, atol=1e-3)


def test_detector_leaves_what_it_hears_alone(spoken):
    soft = spoken * np.float32(0.01)
    before = soft.copy()
    Detector().hear(soft)
    assert np.array_equal(soft, before)


def test_speech_keeps_speech_and_its_place(spoken):
    recording = np.concatenate([silence(5), spoken, silence(7), spoken, silence(4)])
    kept = Stretch(speech(heard(blocks(recording)), VoiceDetection()))
    assert len(kept.pieces) == 2
    first, second = kept.pieces
    for piece in kept.pieces:
        assert np.array_equal(piece.samples, recording[piece.first : piece.first + len(piece.samples)])
    assert 4.3 < first.first / RATE < 5.2
    assert 49.2 < second.first / RATE < 50.1
    assert kept.duration_s < 2 * len(spoken) / RATE + 2


def test_soft_speech_is_kept_as_loud_speech_is(spoken):
    recording = np.concatenate([silence(5), spoken, silence(7)])
    kept = [
        Stretch(speech(heard(blocks(recording * np.float32(level))), VoiceDetection()))
        for level in (1.0, 1e-3)
    ]
    assert kept[1].duration_s == pytest.approx(kept[0].duration_s, rel=0.1)


def test_speech_of_silence_is_nothing():
    assert list(speech(heard(blocks(silence(30))), VoiceDetection())) == []


def kept_of(likely, **voice):
    """The numbers of the frames that are kept, for a voice so likely in each."""
    piece = Piece(0, silence(len(likely) * FRAME_S), likely)
    return [frame.first // FRAME for frame in speech([piece], VoiceDetection(**voice))]


@pytest.mark.parametrize(
    ("padding_ms", "silence_ms", "kept"),
    [
        (320, 192, range(90, 111)),  # longer than the patience
        (64, 640, range(98, 103)),
        (0, 192, range(100, 101)),
        (32, 32, range(99, 102)),
    ],
)
def test_padding_is_kept_before_and_after_speech(padding_ms, silence_ms, kept):
    likely = likely_in((False, 100), (True, 1), (False, 100))
    assert kept_of(likely, prefix_padding_ms=padding_ms, silence_duration_ms=silence_ms) == list(kept)


@pytest.mark.parametrize("padding_ms", [0, 64, 320])
def test_silence_shorter_than_the_patience_is_kept(padding_ms):
    likely = likely_in((True, 10), (False, 19), (True, 10))
    assert kept_of(likely, prefix_padding_ms=padding_ms, silence_duration_ms=640) == list(range(39))


def test_voice_that_fades_is_kept_and_one_so_weak_does_not_begin():
    likely = np.concatenate(
        [likely_in((False, 50), (True, 5)), np.full(20, 0.4, np.float32), likely_in((False, 50))]
    )
    assert kept_of(likely, prefix_padding_ms=0, silence_duration_ms=192) == list(range(50, 75))
    assert kept_of(np.full(50, 0.4, np.float32)) == []


def test_end_of_the_recording_ends_speech():
    assert kept_of(likely_in((True, 5), (False, 3)), prefix_padding_ms=320) == list(range(8))
    assert kept_of(likely_in((True, 5), (False, 3)), prefix_padding_ms=64, silence_duration_ms=640) == list(
        range(7)
    )


SECOND = RATE // FRAME * FRAME / RATE  # 31 frames
GAP = Stretch([piece_of(silence(SECOND), RATE), piece_of(silence(2 * SECOND), 100 * RATE)])


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (0.1, 0.5, (1.1, 1.5)),
        (1.2, 1.5, (100 + 1.2 - SECOND, 100 + 1.5 - SECOND)),
        (0.8, 1.1, (1.8, 1 + SECOND)),  # most of it before the gap
        (0.9, 1.4, (100.0, 100 + 1.4 - SECOND)),  # most of it after
        (-1.0, 0.5, (1.0, 1.5)),
        (2.9, 30.0, (100 + 2.9 - SECOND, 100 + 2 * SECOND)),
    ],
)
def test_word_is_on_one_side_of_what_was_left_out(start_s, end_s, expected):
    assert GAP.recorded(start_s, end_s) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (0.2, 2.0, (1.2, 100 + 2.0 - SECOND)),  # both sides of the gap
        (0.9, 2.0, (100.0, 100 + 2.0 - SECOND)),  # begins where the gap ends, hardly before it
        (0.1, 1.1, (1.1, 1 + SECOND)),
        (SECOND, 2.0, (100.0, 100 + 2.0 - SECOND)),
        (0.1, SECOND, (1.1, 1 + SECOND)),
    ],
)
def test_segment_may_reach_over_what_was_left_out(start_s, end_s, expected):
    assert GAP.recorded(start_s, end_s, 0.3) == pytest.approx(expected)


def test_stretch_tells_where_it_begins_and_ends():
    assert (GAP.start_s, GAP.end_s) == (1.0, 100 + 2 * SECOND)
    assert GAP.duration_s == 3 * SECOND


def test_pieces_that_follow_each_other_are_one():
    parts = [piece_of(silence(SECOND), n * 31 * FRAME) for n in range(3)]
    assert [piece.first for piece in Stretch(parts).pieces] == [0]
    assert [piece.first for piece in Stretch([parts[0], parts[2]]).pieces] == [0, 62 * FRAME]


def test_halves_are_all_of_it(spoken):
    stretch = stretch_of(spoken[: 875 * FRAME])
    first, second = stretch.halves()
    assert np.array_equal(np.concatenate([first.samples, second.samples]), stretch.samples)
    assert second.start_s == first.end_s
    assert 7 - FRAME_S <= first.duration_s <= 21


def test_what_is_short_is_not_halved(spoken):
    stretch = stretch_of(spoken[: 9 * RATE])
    assert stretch.halves() == (stretch,)


def test_rest_of_a_stretch_begins_in_the_silence_that_is_nearest(spoken):
    stretch = stretch_of(spoken[: 100 * FRAME], silence(1), spoken[: 100 * FRAME])
    rest = stretch.since(3.1, 0.3)
    assert rest.end_s == stretch.end_s
    assert rest.start_s == pytest.approx(3.3, abs=0.11)
    assert stretch.since(0.0, 0.0).duration_s == stretch.duration_s


def test_first_speech_skips_a_silent_beginning(spoken):
    found = first_speech(blocks(np.concatenate([silence(60), spoken])), 30)
    assert 20 < len(found) / RATE <= 30
    assert any_voice(Detector().hear(found[: 2 * RATE]))


def test_first_speech_reads_no_further_than_it_needs(spoken):
    read = 0

    def counted():
        nonlocal read
        for block in blocks(np.tile(spoken, 10)):
            read += len(block)
            yield block

    assert len(first_speech(counted(), 30)) == 30 * RATE
    assert read < 60 * RATE


def test_first_speech_of_silence_is_its_beginning():
    assert len(first_speech(blocks(silence(40)), 30)) == 30 * RATE


@pytest.mark.parametrize("level", [1e-4, 1e-2, 0.3, 1.0])
def test_noise_has_no_voice(level):
    assert not stretch_of(np.random.default_rng(0).normal(0, level, 60 * RATE).clip(-1, 1)).may_speak()


def test_silence_and_hum_have_no_voice():
    times = np.arange(60 * RATE) / RATE
    assert not stretch_of(sum(np.sin(2 * np.pi * 50 * k * times) / k for k in (1, 3, 5)) / 5).may_speak()
    assert not stretch_of(silence(60)).may_speak()


@pytest.mark.parametrize("level", [3e-4, 1e-2, 1.0])
def test_soft_speech_has_a_voice(spoken, level):
    assert stretch_of(spoken * np.float32(level)).may_speak()


def test_pauses_of_loud_speech_are_no_soft_speech(spoken):
    far_away = np.concatenate([spoken[: 5 * RATE], silence(1), spoken[: 10 * RATE] * np.float32(1e-3)])
    assert not stretch_of(far_away).may_speak(7.0, 16.0)


def test_voice_late_in_a_stretch_is_found():
    stretch = Stretch([piece_of(silence(100), likely=0.0), piece_of(silence(0.3), len(silence(100)))])
    assert stretch.may_speak()
    assert not stretch.may_speak(0.0, 90.0)
    assert not stretch.may_speak(0.0, 100.0)


@pytest.mark.parametrize("start", [0, 120, 125, 300])
def test_short_word_is_heard_wherever_it_is(start):
    likely = likely_in((False, 400))
    likely[start : start + 8] = 0.6
    piece = Piece(0, silence(len(likely) * FRAME_S), likely)
    assert Stretch([piece]).may_speak()
