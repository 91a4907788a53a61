"""What becomes of what a model writes: on a model that writes what it is told, with a real tokenizer."""

import contextlib
from types import SimpleNamespace

import ctranslate2
import faster_whisper
import numpy as np
import pytest
import tokenizers
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import Segment
from hearing import RATE, Heard, piece_of, silence
from speech_common.sound.voice import FRAME
from speech_common.sound.windows import Stretch
from whisper_server.model import Model
from whisper_server.options import Options
from whisper_server.transcribe import Transcriber

PLAIN = [(0.0, " Eight of spades,", 4.0), (4.0, " four of clubs.", 8.0)]


class Scripted:
    """A model that writes these parts: of each window in a batch, and of each stretch window by window.

    A part is when it begins, its text and when it ends, in s; None where there is no time stamp. `seeks` are the frames
    at which the windows of the single parts begin.
    """

    max_length, time_precision, frames_per_second, streams = 448, 0.02, 100, 1
    get_prompt = faster_whisper.WhisperModel.get_prompt

    def __init__(self, path, *, batched=PLAIN, alone=((0.0, " Alone.", 2.0),), seeks=(0,), **measures):
        self.hf_tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
        self.tokenizer = Tokenizer(self.hf_tokenizer, False, task="transcribe", language="en")
        self.feature_extractor = FeatureExtractor()
        self.model = SimpleNamespace(device="cpu", is_multilingual=False, generate=self._generate)
        self.windows, self.batches, self.stretches = [], [], []
        self.asked = None
        self._batched, self._alone, self._seeks = batched, alone, seeks
        self._measures = {"logprob": -0.2, "no_speech": 0.0} | measures

    def tokens(self, parts):
        return [token for part in parts for each in part for token in self._tokens(each)]

    def _tokens(self, each):
        if isinstance(each, str):
            return self.tokenizer.encode(each)
        return [] if each is None else [self.tokenizer.timestamp_begin + round(each / self.time_precision)]

    def checked_by(self, check):
        return contextlib.nullcontext()

    def encode(self, features):
        self.windows.append(features)
        return ctranslate2.StorageView.from_array(np.zeros((1, 1500, 4), np.float32))

    def _generate(self, encoded, prompts, **asked):
        assert encoded.shape == [len(prompts), 1500, 4]
        self.batches.append(len(prompts))
        self.asked = asked | {"prompt": self.tokenizer.decode(prompts[0])}
        tokens = self.tokens(self._batched)
        written = SimpleNamespace(
            sequences_ids=[tokens],
            scores=[self._measures["logprob"]],
            no_speech_prob=self._measures["no_speech"],
        )
        return [written] * len(prompts)

    def transcribe(self, samples, **asked):
        self.stretches.append(len(samples) / RATE)
        self.asked = asked
        # As the library has it, the only time stamp is the end.
        parts = [
            Segment(
                id=1,
                seek=seek,
                start=begin if end else 0.0,
                end=end or begin or 30.0,
                text=text,
                tokens=self.tokens([(begin, text, end)]),
                avg_logprob=-0.2,
                compression_ratio=1.0,
                no_speech_prob=0.0,
                words=None,
                temperature=0.0,
            )
            for seek, (begin, text, end) in zip(self._seeks, self._alone, strict=True)
        ]
        return iter(parts), None


def window(number=0, voice_s=8.0, duration_s=20.0):
    """A stretch of `duration_s`, the first `voice_s` of which are speech."""
    stretch = Stretch([piece_of(silence(duration_s), number * len(silence(duration_s)), likely=0.0)])
    stretch.likely[: int(voice_s * RATE / 512)] = 0.9
    return stretch


@pytest.fixture
def scripted(tiny_model):
    return lambda **script: Scripted(tiny_model, **script)


def batched(model, *windows, size=4, **options):
    return list(Transcriber(model, Options(**options), "en", Heard()).batched(windows or [window()], size))


def texts(segments):
    return [segment.text for segment in segments]


def spans(segments):
    return [(segment.start, segment.end) for segment in segments]


def test_text_that_looks_right_is_taken_as_it_is(scripted):
    model = scripted()
    said = batched(model, window(), window(1))
    assert texts(said) == [" Eight of spades,", " four of clubs."] * 2
    second = window(1).start_s
    assert spans(said) == [(0, 4), (4, 8), (second, second + 4), (second + 4, second + 8)]
    assert [segment.id for segment in said] == [0, 1, 2, 3]
    assert model.stretches == []


@pytest.mark.parametrize("duration_s", [0.5, 20.0, 28.0])
def test_rest_of_a_window_is_silence(scripted, duration_s):
    """What the library fills it with, zeros, is a sound: the model then often leaves out the last sentence."""
    model = scripted()
    samples = np.random.default_rng(0).normal(0, 0.1, int(duration_s * RATE)).astype(np.float32)
    batched(model, Stretch([piece_of(samples)]))
    [heard] = model.windows
    whole = np.concatenate([samples, np.zeros(30 * RATE - len(samples), np.float32)])
    assert heard.shape == (80, 3000)
    assert np.allclose(heard, model.feature_extractor(whole)[:, :3000])


LOOP = [(0.0, " He was not an" * 20, 8.0)]


@pytest.mark.parametrize("script", [{"logprob": -1.5}, {"no_speech": 0.9}, {"batched": []}])
def test_text_that_looks_wrong_is_decoded_again_in_halves(scripted, script):
    model = scripted(**script)
    said = batched(model, window(voice_s=18.0))
    assert texts(said) == [" Alone.", " Alone."]
    assert len(model.stretches) == 2
    assert sum(model.stretches) == window().duration_s


def test_text_that_loops_is_decoded_again_in_ever_smaller_parts(scripted):
    model = scripted(batched=LOOP)
    said = batched(model, window(voice_s=18.0))
    assert texts(said) == [" Alone."] * len(model.stretches)
    assert sum(model.stretches) == window().duration_s
    assert 2.5 < max(model.stretches) < 10


def test_part_of_a_loop_that_looks_right_is_taken_as_it_is(scripted):
    """What somebody says over and over looks like a loop in all of it, and not in half of it."""
    model = scripted()
    whole = iter([model.tokens(LOOP)])
    written = model.tokens([(0.0, " Eight of spades,", 4.0), (4.0, " four of clubs.", 15.0)])
    model.tokens = lambda _: next(whole, written)
    said = batched(model, window(voice_s=18.0))
    assert texts(said) == [" Eight of spades,", " four of clubs."] * 2
    assert (model.batches, model.stretches) == ([1, 1, 1], [])


def test_half_of_a_loop_without_a_voice_is_not_decoded(scripted):
    model = scripted(batched=LOOP)
    batched(model, window(voice_s=6.0, duration_s=16.0))
    assert model.batches == [1, 1]


def test_what_is_short_is_decoded_again_in_one(scripted):
    model = scripted(batched=LOOP)
    assert texts(batched(model, window(voice_s=4, duration_s=5))) == [" Alone."]
    assert model.stretches == [window(duration_s=5).duration_s]


@pytest.mark.parametrize(("prompt", "room"), [("", 224), ("Jane Austen. " * 100, 448 - 225)])
def test_text_that_had_no_room_is_decoded_again(scripted, prompt, room):
    model = scripted()
    for count, is_looked_at in ((room - 1, False), (room, True)):
        model.tokens = lambda _, count=count: [model.tokenizer.timestamp_begin, *range(1000, 999 + count)]
        batched(model, window(voice_s=18.0), prompt=prompt)
        assert bool(model.stretches) is is_looked_at


def test_speech_without_words_is_decoded_from_where_the_words_end(scripted):
    model = scripted()
    said = batched(model, window(voice_s=18.0))
    assert texts(said) == [" Eight of spades,", " four of clubs.", " Alone."]
    rest_s = model.stretches[0]
    assert rest_s == pytest.approx(12.0, abs=0.4)
    assert said[2].end == pytest.approx(window().duration_s - rest_s + 2.0)
    assert model.asked["initial_prompt"] == model.tokens(PLAIN)


@pytest.mark.parametrize(("seek", "expected"), [(500, 3), (1000, 2)])
def test_second_look_ends_where_nobody_speaks_any_more(scripted, seek, expected):
    """A decoder that goes on in silence says again what it said before."""
    again = ((0.0, " Alone.", 2.0), (0.0, " Again.", 1.0))
    model = scripted(batched=[(0.0, " Eight of spades,", 8.0)], alone=again, seeks=(0, seek))
    assert len(batched(model, window(voice_s=16.0))) == expected


def test_groups_grow_so_that_the_first_words_leave_early(scripted):
    model = scripted()
    said = Transcriber(model, Options(), "en", Heard()).batched((window(n) for n in range(12)), 4)
    next(said)
    assert model.batches == [1]
    assert len(list(said)) == 23
    assert model.batches == [1, 2, 4, 4, 1]


def test_part_without_a_time_stamp_reaches_the_end_of_its_window(scripted):
    end = window().duration_s
    for script, expected in (
        ([(0.4, " Eight of spades", None)], [(0.4, end)]),
        ([(None, " Eight of spades", None)], [(0.0, end)]),
        ([(0.0, " Eight,", 4.0), (4.0, " four", None)], [(0.0, 4.0), (4.0, end)]),
        ([(0.0, " Eight,", 4.0), (4.0, " four", 8.0), (8.0, "", None)], [(0.0, 4.0), (4.0, 8.0)]),
    ):
        assert spans(batched(scripted(batched=script), window())) == expected


@pytest.mark.parametrize(
    ("alone", "expected"),
    [
        ([(0.4, " Eight of spades", None)], (0.4, 20.0)),
        ([(0.4, " Eight of spades", 3.0)], (0.4, 3.0)),
        ([(None, " Eight of spades", None)], (0.0, 20.0)),
    ],
)
def test_part_has_its_own_times_window_by_window_too(scripted, alone, expected):
    transcriber = Transcriber(scripted(alone=alone), Options(), "en", Heard())
    (said,) = transcriber.sequential(window().pieces)
    assert (said.start, said.end) == pytest.approx(expected, abs=0.02)


def test_what_is_said_late_in_a_stretch_is_no_invention_of_its_beginning(scripted):
    """Its only time stamp is at the beginning, where nobody speaks."""
    stretch = window(voice_s=0.0)
    stretch.likely[300:] = 0.9
    transcriber = Transcriber(scripted(alone=[(0.4, " Eight of spades", None)]), Options(), "en", Heard())
    assert texts(transcriber.sequential(stretch.pieces)) == [" Eight of spades"]


def test_segment_after_what_was_left_out_begins_there(scripted):
    first, second = silence(4), silence(4)
    stretch = Stretch([piece_of(first), piece_of(second, 100 * RATE)])
    at = len(first) / RATE
    script = [(0.0, " Eight of spades,", at + 0.04), (at - 0.1, " four of clubs.", 8.0)]
    said = batched(scripted(batched=script), stretch)
    assert spans(said) == [(0.0, at), (100.0, pytest.approx(108.0 - at, abs=0.02))]


def test_window_without_a_text_has_no_words(scripted):
    model = scripted(batched=[])
    said = batched(model, window(), word_timestamps=True)
    assert (texts(said), model.batches) == ([" Alone."], [1])


@pytest.mark.parametrize("temperature", [None, 0.3])
def test_options_reach_a_batch(scripted, temperature):
    model = scripted()
    batched(model, prompt="Jane Austen.", hotwords="Dashwood", beam_size=3, temperature=temperature)
    assert "Dashwood Jane Austen." in model.asked["prompt"]
    if temperature is None:
        assert (model.asked["beam_size"], model.asked["patience"]) == (3, 1.0)
    else:
        assert (model.asked["beam_size"], model.asked["sampling_temperature"]) == (1, temperature)


@pytest.mark.parametrize("temperature", [None, 0.3])
def test_options_reach_each_window(scripted, temperature):
    model = scripted(batched=LOOP)
    options = Options(prompt="Jane Austen.", hotwords="Dashwood", beam_size=3, temperature=temperature)
    for decode in (lambda one: one.sequential(window().pieces), lambda one: one.batched([window()], 4)):
        assert list(decode(Transcriber(model, options, "en", Heard())))
        assert model.tokenizer.decode(model.asked["initial_prompt"]).startswith(" Jane Austen.")
        assert (model.asked["hotwords"], model.asked["beam_size"]) == ("Dashwood", 3)
        hottest = model.asked["temperature"]
        assert hottest == temperature if temperature else hottest[0] == 0.0


def test_what_was_said_leads_on_to_the_next_stretch(scripted):
    model = scripted()
    recording = [*window(duration_s=60).pieces, *window(duration_s=60).pieces]
    list(Transcriber(model, Options(), "en", Heard()).sequential(recording))
    assert len(model.stretches) == 2
    assert model.asked["initial_prompt"] == model.tokens([(0.0, " Alone.", 2.0)])


class Telling(Model):
    """Writes two parts in each window, and where the next one begins. Notes when each window began."""

    def generate_with_fallback(self, encoded, prompt, tokenizer, options):
        times = [
            tokenizer.timestamp_begin + round(seconds / self.time_precision) for seconds in (0, 9, 9, 23.7)
        ]
        words = tokenizer.encode(" Eight of spades.")
        tokens = [times[0], *words, *times[1:3], *words, times[3], times[3]]
        self.prompts.append(len(prompt))
        return SimpleNamespace(sequences_ids=[tokens], no_speech_prob=0.0), -0.2, 0.0, 1.0


@pytest.fixture
def telling(tiny_model):
    model = Telling(str(tiny_model), device="cpu", compute_type="int8", cpu_threads=1)
    model.prompts = []
    return model


def test_windows_begin_where_they_do_in_the_whole_recording(telling):
    recording = silence(200)
    end_s = len(recording) / RATE
    whole = [(part.start, min(part.end, end_s)) for part in telling.transcribe(recording, language="en")[0]]
    prompts, telling.prompts = telling.prompts, []
    pieces = [piece_of(part, first) for first, part in numbered(recording, 125)]
    progress = Heard()
    said = list(Transcriber(telling, Options(), "en", progress).sequential(pieces))
    assert len(said) == 2 * 9
    assert spans(said) == [pytest.approx(span, abs=0.1) for span in whole]
    assert telling.prompts == prompts
    assert progress.until_s == sorted(progress.until_s)
    assert progress.until_s[-1] == end_s


def test_what_is_silent_for_long_is_not_decoded(telling):
    recording = silence(300)
    pieces = [piece_of(part, first, likely=0.0) for first, part in numbered(recording, 125)]
    pieces[-2:] = [piece_of(piece.samples, piece.first) for piece in pieces[-2:]]
    said = list(Transcriber(telling, Options(), "en", Heard()).sequential(pieces))
    assert len(telling.prompts) <= 3
    assert said[-1].end == pytest.approx(300, abs=25)


def numbered(recording, frames):
    """The number of the first sample of so many frames, and their samples."""
    size = frames * FRAME
    return ((first, recording[first : first + size]) for first in range(0, len(recording), size))
