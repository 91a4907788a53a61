"""whisperx's own transcription, on real recordings with whisper-base."""

import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import jiwer
import numpy as np
import pytest
from speech_common.job import Abandoned
from whisperx_server import asr
from whisperx_server.sentences import sentences

RATE = 16000
LOOK = "import json, sys; print(json.dumps([name for name in {names} if name in sys.modules]))"
HEAVY = [
    "pyannote.audio",
    "transformers",
    "sklearn",
    "scipy",
    "torchvision",
    "torch._dynamo",
    "nltk",
    "pandas",
]


def hear(model, windows, **options):
    usual = {"language": "en", "task": "transcribe", "prompt": None, "hotwords": None, "beam_size": 5}
    usual |= {"times_words": False, "check": lambda: None}
    return asr.hear(model, windows, **{**usual, **options})


def word_error_rate(spoken, written):
    """Compare as is usual: case, punctuation and hyphens do not count, nor does Mr. or Mister."""

    def normal(text):
        words = re.sub(r"[^a-z0-9' ]+", " ", text.lower()).split()
        return " ".join({"mister": "mr"}.get(word, word) for word in words)

    return jiwer.wer(normal(spoken), normal(written))


def text_of(heard):
    return "".join(one.text for one in heard)


def python(code):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_transcription_is_imported_without_the_libraries_it_does_not_need():
    assert python(f"import whisperx_server.asr; {LOOK.format(names=HEAVY)}") == []


def test_alignment_and_assignment_are_imported_with_pandas_alone():
    code = "from whisperx_server import lean; lean.alignment(); lean.diarize()"
    assert python(f"{code}; {LOOK.format(names=HEAVY)}") == ["pandas"]


def test_the_whole_libraries_can_be_imported_afterwards():
    code = """
import json
from whisperx_server import lean
parts = [lean.asr(), lean.alignment(), lean.diarize()]
import warnings; warnings.simplefilter("ignore")
import whisperx.diarize, whisperx.vads, transformers, nltk
print(json.dumps([
    whisperx.diarize.Pipeline.__module__.startswith("pyannote"),
    whisperx.vads.Vad is not parts[0].Vad,
    hasattr(transformers.Pipeline, "save_pretrained"),
    hasattr(nltk, "download"),
]))
"""
    assert python(code) == [True] * 4


def test_words_of_two_speakers_are_heard(whisper, recordings):
    heard = hear(whisper, recordings.windows(recordings.samples("two-speakers")))
    assert word_error_rate(recordings.said("two-speakers"), text_of(heard)) <= 0.08


def test_words_of_a_reader_are_heard(whisper, recordings):
    names = ["austen-0870", "austen-0880", "austen-0890"]
    heard = hear(whisper, recordings.windows(recordings.samples(*names, pause_s=0.5)))
    assert word_error_rate(recordings.said(*names), text_of(heard)) <= 0.08


def test_utterances_start_within_0_3_s_of_the_reference_without_an_alignment_model(whisper, recordings):
    [window] = recordings.windows(recordings.samples("two-speakers"))
    [heard] = hear(whisper, [window], times_words=True)
    starts_s = [sentence.start_s for sentence in sentences(heard.words)]
    expected_s = [start_s for start_s, _ in recordings.turns("two-speakers")]
    assert starts_s == pytest.approx(expected_s, abs=0.3)


def test_words_begin_with_their_voice_after_a_pause(whisper, recordings):
    # By attention alone, "Eight" begins 0.8 s early here.
    pause = np.random.default_rng(0).normal(0, 1e-4, 2 * RATE).astype(np.float32)
    utterances = [
        recordings.samples("two-speakers")[int(start_s * RATE) : int(end_s * RATE)]
        for start_s, end_s in recordings.turns("two-speakers")[:3]
    ]
    [window] = recordings.windows(np.concatenate([part for one in utterances for part in (pause, one)]))
    [heard] = hear(whisper, [window], times_words=True)
    starts_s = [sentence.start_s for sentence in sentences(heard.words)]
    ends_s = np.cumsum([2 + len(one) / RATE for one in utterances])
    begun_s = [end_s - len(one) / RATE for end_s, one in zip(ends_s, utterances, strict=True)]
    # What the detector hears first, after the breath that the recordings begin with.
    voiced_s = [
        begin_s + np.flatnonzero(window.likely[int(begin_s / 0.032) :] > 0.5)[0] * 0.032
        for begin_s in begun_s
    ]
    assert starts_s == pytest.approx(voiced_s, abs=0.15)


def test_words_make_up_the_text_and_their_times_rise_within_the_window(whisper, recordings):
    [window] = recordings.windows(recordings.samples("two-speakers"))
    [heard] = hear(whisper, [window], times_words=True)
    assert "".join(word.word for word in heard.words) == heard.text
    assert "cold-hearted" in [word.word.strip() for word in heard.words]
    times = [time for word in heard.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0.0 <= times[0] < times[-1] <= window.duration_s
    assert all(0.0 < word.probability <= 1.0 for word in heard.words)


def test_words_have_no_times_where_nobody_asks(whisper, recordings):
    [heard] = hear(whisper, recordings.windows(recordings.samples("austen-0880")))
    assert heard.words == ()


def test_a_batch_hears_what_each_window_alone_does(whisper, recordings):
    windows = recordings.windows(recordings.samples("two-speakers"), longest_s=8.0)
    assert len(windows) > 2
    together = hear(whisper, windows, times_words=True)
    alone = [heard for window in windows for heard in hear(whisper, [window], times_words=True)]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [[word.start for word in one.words] for one in together] == [
        [word.start for word in one.words] for one in alone
    ]
    assert [one.avg_logprob for one in together] == pytest.approx(
        [one.avg_logprob for one in alone], abs=0.05
    )


def test_every_phrase_of_a_window_that_loops_is_heard_once(whisper, recordings):
    # Decoded at once, whisper-base writes it down 18 times.
    start_s, end_s = recordings.turns("two-speakers")[3]
    phrase = recordings.samples("two-speakers")[int(start_s * RATE) : int(end_s * RATE)]
    pause = np.zeros(RATE // 2, np.float32)
    [window] = recordings.windows(np.concatenate([phrase, pause] * 13))
    [heard] = hear(whisper, [window], times_words=True)
    ends_s = [word.end for word in heard.words if "clubs" in word.word]
    # The word ends 1.0 s after its phrase has begun.
    period_s = (len(phrase) + len(pause)) / RATE
    assert ends_s == pytest.approx([period_s * number + 1.0 for number in range(13)], abs=0.3)


def test_language_and_prompt_are_told_to_the_decoder(whisper, recordings):
    windows = recordings.windows(recordings.samples("austen-0870"))
    english, german = (hear(whisper, windows, language=code) for code in ("en", "de"))
    assert text_of(english).startswith(" And ")
    assert text_of(german).startswith(" Und ")
    assert "Dashwood" in text_of(english)
    prompted = hear(
        whisper, windows, prompt="The Dashwoods: Mister Jon Dashwud, a squire, Jon Dashwud of Norland."
    )
    assert "Dashwud" in text_of(prompted)


@pytest.mark.parametrize("samples", [1, 160, 800, 20 * RATE])
def test_silence_of_any_length_breaks_nothing(whisper, recordings, samples):
    windows = recordings.windows(np.zeros(samples, np.float32))
    [heard] = hear(whisper, windows, times_words=True)
    assert all(0.0 <= word.start <= word.end <= max(windows[0].duration_s, 0.1) for word in heard.words)


def test_threads_do_not_hear_each_others_words(whisper, recordings):
    windows = {
        name: recordings.windows(recordings.samples(name))
        for name in ("two-speakers", "austen-0870", "austen-0880")
    }
    alone = {name: hear(whisper, windows[name], times_words=True) for name in windows}
    together = threading.Barrier(len(windows))

    def work(name):
        together.wait(60)
        return hear(whisper, windows[name], times_words=True)

    with ThreadPoolExecutor(len(windows)) as pool:
        assert dict(zip(windows, pool.map(work, windows), strict=True)) == alone


def test_what_check_raises_ends_the_work_before_the_next_window(whisper, recordings):
    checked = []

    def check():
        checked.append(None)
        if len(checked) > 1:
            raise Abandoned

    windows = recordings.windows(recordings.samples("two-speakers"), longest_s=8.0)
    with pytest.raises(Abandoned):
        hear(whisper, windows, check=check)
    assert len(checked) == 2
