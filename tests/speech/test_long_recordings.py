"""Recordings longer than a window: nothing is lost or doubled at the seams, and memory does not grow."""

import tracemalloc

import numpy as np
import pytest
from hearing import EXAMPLES, RATE, Heard, blocks, floats_of, silence, transcribed, wav, word_error_rate
from speech_common.sound.detection import VoiceDetection
from speech_common.sound.windows import heard, speech, stretches
from whisper_server.model import Model
from whisper_server.options import Options
from whisper_server.transcribe import Transcriber

COPIES = 4
NAMES = ("austen-0870", "austen-0880", "austen-0890")


@pytest.fixture(scope="module")
def model(base_model):
    # What whisper-tiny hears of this differs with the last bits of its input, which are not the same in every process.
    return Model(str(base_model), device="cpu", compute_type="int8", cpu_threads=1)


@pytest.fixture(scope="module")
def one():
    """16 s of speech, a paragraph, with a pause after it."""
    return np.concatenate([*(floats_of(name) for name in NAMES), silence(0.6)])


@pytest.fixture(scope="module")
def alone(model, one):
    return transcribed(model, wav(one * 32768), word_timestamps=True)


@pytest.fixture(scope="module", params=["window by window", "batched"])
def joined(request, model, one):
    """What is heard of so many copies, longer than what is in memory at once."""
    transcriber = Transcriber(model, Options(word_timestamps=True), "en", Heard())
    pieces = heard(blocks(np.tile(one, COPIES)))
    if request.param == "batched":
        return list(transcriber.batched(stretches(pieces, 30, 14), 4))
    return list(transcriber.sequential(pieces))


def test_joined_copies_give_as_many_times_the_text(alone, joined):
    spoken = " ".join((EXAMPLES / f"{name}.txt").read_text() for name in NAMES)
    assert word_error_rate(spoken, alone.text) <= 0.05
    text = "".join(segment.text for segment in joined)
    assert word_error_rate(" ".join([alone.text] * COPIES), text) == 0


def test_each_copy_is_found_at_its_own_time(one, joined):
    words = [word for segment in joined for word in segment.words]
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= COPIES * len(one) / RATE
    starts = [word.start for word in words if word.word.strip(" .,") == "Dashwood"]
    assert len(starts) == COPIES
    assert np.diff(starts) == pytest.approx([len(one) / RATE] * (COPIES - 1), abs=1.0)


@pytest.mark.parametrize("kept", ["everything", "speech"])
def test_memory_does_not_grow_with_the_recording(kept):
    samples = floats_of("austen-0870")

    def peak_bytes(seconds):
        pieces = heard(samples[:1024].copy() for _ in range(seconds * RATE // 1024))
        if kept == "speech":
            pieces = speech(pieces, VoiceDetection(threshold=0.0))
        tracemalloc.start()
        try:
            for _ in stretches(pieces, 60, 20):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak_bytes(200) < 1.2 * peak_bytes(100)
