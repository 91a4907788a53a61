"""From a file to the transcript, on real recordings, with stand-ins for what needs torch."""

import io
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from hearing import EXAMPLES, RATE, Heard, pause, samples_of, wav
from speech_common.errors import DiarizationUnavailable, InvalidValue, UnreadableAudio, UnsupportedField
from speech_common.job import Abandoned
from speech_common.models.checkpoint import Facts
from speech_common.transcript import Word
from whisperx_server import said
from whisperx_server.engine import Engine
from whisperx_server.options import Options, Reference
from whisperx_server.settings import Settings
from whisperx_server.speakers import Turn

TWO = EXAMPLES / "two-speakers.wav"
TURNS = [
    Turn(float(start), float(start) + float(length), who)
    for _, _, _, start, length, _, _, who, *_ in (
        line.split() for line in (EXAMPLES / "two-speakers.rttm").read_text().splitlines()
    )
]


class Tokenizer:
    def encode(self, text):
        return text.split()


class Model:
    """Knows English and French; hears French where it is asked."""

    model = SimpleNamespace(device="cpu", is_multilingual=True)
    heard_bytes = 1
    hf_tokenizer = Tokenizer()
    streams = 2
    frames_per_second = 100
    supported_languages = ("en", "fr")
    facts = Facts(is_multilingual=True, languages=("en", "fr"))

    @contextmanager
    def checked_by(self, check):
        check(0.0)
        yield

    def detect_language(self, audio):
        return "fr", 0.9, [("fr", 0.9), ("en", 0.1)]


class Diarizer:
    """Tells what the test says, having heard all of the recording."""

    name = "test"

    def __init__(self, log):
        self._log = log
        self.turns_told = TURNS
        self.failure = None
        self.sought = None
        self.is_loaded = False

    def load(self, check):
        self._log.append("load")
        check()
        if self.failure:
            raise self.failure
        self.is_loaded = True

    def turns(self, pieces, sought, check):
        self._log.append("turns")
        check()
        self.heard_s = sum(piece.samples.size for piece in pieces) / RATE
        self.sought = sought
        return self.turns_told


class Aligner:
    name = "wav2vec2-test"

    def sentences(self, stretch, heard):
        return [said.Sentence(" Aligned.", 1.0, 2.0, (Word(" Aligned.", 1.0, 2.0, 0.5),))]


class Parts:
    """Says a word in each second of a stretch: its number in the recording."""

    def __init__(self):
        self.log = []
        self.diarizer = Diarizer(self.log)
        self.aligned = None
        self.hears = []
        self.text = None

    def hear(self, model, group, options, *, language, times_words, check):
        check()
        self.log.append("hear")
        self.hears.append((language, times_words, [stretch.duration_s for stretch in group]))
        return [self._heard(stretch, times_words) for stretch in group]

    def _heard(self, stretch, times_words):
        starts = range(int(stretch.duration_s))
        words = [Word(f" w{stretch.start_s + start:.0f}", start + 0.1, start + 0.9) for start in starts]
        text = self.text if self.text is not None else "".join(word.word for word in words)
        return said.Heard(text, -0.25, tuple(words) if times_words else (), 1.5)

    def aligner(self, language, check):
        check()
        self.log.append(f"aligner {language}")
        return self.aligned

    def assign(self, turns, words):
        self.assigned = turns
        return [
            max(turns, key=lambda turn: min(turn.end_s, word.end) - max(turn.start_s, word.start)).speaker
            if turns
            else None
            for word in words
        ]


class Registry:
    model = Model()

    @contextmanager
    def lease(self, name, check):
        yield self.model


@pytest.fixture
def parts():
    return Parts()


@pytest.fixture
def run(parts):
    engine = Engine(Registry(), Settings.from_environment({}), parts)

    def run(file=None, progress=None, **options):
        file = io.BytesIO(TWO.read_bytes()) if file is None else file
        return engine.run("base", file, Options(**options), progress or Heard())

    return run


def test_plain_text_needs_neither_words_nor_speakers(run, parts):
    transcript = run(language="en")
    assert parts.log == ["hear"]
    assert [times for _, times, _ in parts.hears] == [False]
    assert all(segment.speaker is None and not segment.words for segment in transcript.segments)
    assert transcript.text.startswith("w0 w1")
    assert transcript.duration_s == pytest.approx(22.43, abs=0.01)


def test_words_fall_back_to_the_decoders_own_times(run, parts):
    transcript = run(language="en", times_words=True)
    assert "aligner en" in parts.log
    assert transcript.alignment is None
    first = transcript.segments[0]
    assert [(word.word, word.start) for word in first.words[:2]] == [(" w0", 0.1), (" w1", 1.1)]
    assert (first.start, first.end, first.avg_logprob, first.compression_ratio) == (0.1, 21.9, -0.25, 1.5)


def test_words_are_aligned_where_something_can_and_not_timed_twice(run, parts):
    parts.aligned = Aligner()
    transcript = run(language="en", times_words=True)
    assert transcript.alignment == "wav2vec2-test"
    assert [times for _, times, _ in parts.hears] == [False]
    assert [word.probability for segment in transcript.segments for word in segment.words] == [0.5]


def test_translation_is_not_laid_on_the_audio(run, parts):
    parts.aligned = Aligner()
    transcript = run(language="fr", times_words=True, task="translate")
    assert (transcript.language, transcript.alignment) == ("en", None)
    assert "aligner fr" not in parts.log


def test_each_segment_has_one_speaker_and_every_word_is_in_one(run, parts):
    transcript = run(language="en", times_words=True, diarize=True)
    words = [word.word for segment in transcript.segments for word in segment.words]
    assert words == [f" w{second}" for second in range(22)]
    for segment in transcript.segments:
        assert {word.speaker for word in segment.words} == {segment.speaker}
        assert segment.text == "".join(word.word for word in segment.words)
    # The reader speaks first, then the player: 0 s, 7.5 s, 11.4 s, 14.8 s and 16.7 s.
    heard = dict(
        zip(words, (segment.speaker for segment in transcript.segments for _ in segment.words), strict=True)
    )
    assert [heard[f" w{second}"] for second in (0, 6, 8, 10, 12, 15, 18, 21)] == [
        "SPEAKER_00", "SPEAKER_00", "SPEAKER_01", "SPEAKER_01", "SPEAKER_00", "SPEAKER_01", "SPEAKER_00", "SPEAKER_00",
    ]  # fmt: skip


def test_segments_are_told_with_their_speakers_as_they_come(run):
    progress = Heard()
    transcript = run(language="en", times_words=True, diarize=True, progress=progress)
    assert tuple(progress.segments) == transcript.segments


def test_speakers_are_told_apart_before_anything_is_decoded(run, parts):
    run(language="en", times_words=True, diarize=True, min_speakers=2, max_speakers=3)
    assert parts.log[:3] == ["load", "aligner en", "turns"]
    assert (parts.diarizer.sought.at_least, parts.diarizer.sought.at_most) == (2, 3)
    assert parts.diarizer.heard_s == pytest.approx(22.43, abs=0.01)


def test_what_cannot_tell_speakers_apart_fails_before_anything_is_computed(run, parts):
    parts.diarizer.failure = DiarizationUnavailable("set HF_TOKEN")
    with pytest.raises(DiarizationUnavailable):
        run(times_words=True, diarize=True)
    assert parts.log == ["load"]


def test_silence_has_neither_text_nor_speakers(run, parts):
    parts.diarizer.turns_told = []
    transcript = run(wav(pause(40)), language="en", times_words=True, diarize=True)
    assert (transcript.segments, parts.hears) == ((), [])
    assert transcript.duration_s == pytest.approx(40.0, abs=0.1)


def test_words_that_nobody_was_heard_to_say_are_kept(run, parts):
    parts.diarizer.turns_told = []
    transcript = run(language="en", times_words=True, diarize=True)
    assert {segment.speaker for segment in transcript.segments} == {None}
    assert len([word for segment in transcript.segments for word in segment.words]) == 22


@pytest.fixture
def untimed(monkeypatch):
    """A model whose config.json has no alignment heads."""
    facts = Facts(is_multilingual=True, languages=("en", "fr"), times_words=False)
    monkeypatch.setattr(Model, "facts", facts)


@pytest.mark.usefixtures("untimed")
def test_who_speaks_is_told_of_a_text_whose_words_nothing_times(run):
    transcript = run(language="en", times_words=True, diarize=True)
    assert [(segment.speaker, segment.words) for segment in transcript.segments] == [("SPEAKER_00", ())]


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    ("options", "log", "reason"),
    [
        ({"language": "en"}, ["load", "aligner en"], "no alignment model for en"),
        ({}, ["load", "aligner fr"], "no alignment model for fr"),
        ({"task": "translate"}, ["load"], "alignment_heads"),
    ],
)
def test_words_that_nothing_times_are_refused_by_name_before_anything_is_computed(
    run, parts, options, log, reason
):
    with pytest.raises(UnsupportedField, match=reason) as refused:
        run(times_words=True, words_for="format", diarize=True, **options)
    assert refused.value.param == "format"
    assert parts.log == log


@pytest.mark.usefixtures("untimed")
def test_words_that_only_an_alignment_times_are_not_refused(run, parts):
    parts.aligned = Aligner()
    transcript = run(times_words=True, words_for="format")
    assert [word.word for word in transcript.segments[0].words] == [" Aligned."]


@pytest.mark.usefixtures("untimed")
def test_text_needs_nothing_that_times_words(run):
    assert run(language="en").text.startswith("w0 w1")


def test_hotwords_leave_room_for_a_transcript(run, parts):
    run(language="en", hotwords="word " * 112)
    with pytest.raises(InvalidValue, match="112 tokens"):
        run(language="en", hotwords="word " * 113)


def test_work_ends_between_two_windows_of_a_batch(run, parts):
    class Leaves(Heard):
        def said(self, segment):
            super().said(segment)
            self.has_left = len(self.segments) == 2  # the first window is alone, the next two are a batch

        def check(self):
            if getattr(self, "has_left", False):
                raise Abandoned

    progress = Leaves()
    with pytest.raises(Abandoned):
        run(wav(np.tile(samples_of("two-speakers"), 6)), language="en", progress=progress)
    assert len(progress.segments) == 2


def test_text_of_white_space_is_no_segment(run, parts):
    parts.text = "  "
    assert run(language="en", times_words=True).segments == ()


def test_language_is_detected_among_those_that_are_asked_for(run, parts):
    assert run(times_words=True).language == "fr"
    assert run(times_words=True, languages=("en", "fr")).language == "fr"
    assert {language for language, _, _ in parts.hears} == {"fr"}


def test_language_that_the_model_does_not_know_is_refused(run, parts):
    with pytest.raises(InvalidValue, match="language"):
        run(language="de")
    assert parts.log == []


def test_windows_are_short_enough_and_end_in_silences(run, parts):
    spoken = samples_of("austen-0870")
    run(wav(np.concatenate([spoken, pause(1.0)] * 12)), language="en")
    durations = [duration for _, _, group in parts.hears for duration in group]
    assert max(durations) <= 28.0
    assert sum(durations) == pytest.approx(12 * (spoken.size / RATE + 1.0), abs=0.1)


def test_abandoned_work_ends(run, parts):
    class Gone(Heard):
        def check(self):
            raise Abandoned

    with pytest.raises(Abandoned):
        run(language="en", times_words=True, diarize=True, progress=Gone())
    assert "hear" not in parts.log


def test_who_leaves_while_what_tells_speakers_apart_loads_is_let_go(run, parts):
    class Gone(Heard):
        def check(self):
            if parts.log:
                raise Abandoned

    with pytest.raises(Abandoned):
        run(language="en", times_words=True, diarize=True, progress=Gone())
    assert parts.log == ["load"]
    assert not parts.diarizer.is_loaded


def reference(seconds=3.0, content=None):
    samples = samples_of("austen-0890")[: int(seconds * RATE)]
    return Reference("Ann", content if content is not None else wav(samples).getvalue())


def test_known_speaker_is_decoded_and_keeps_the_name(run, parts):
    parts.diarizer.turns_told = [
        turn._replace(speaker="Ann") if turn.speaker == "player" else turn for turn in TURNS
    ]
    transcript = run(language="en", times_words=True, diarize=True, references=(reference(),))
    (known,) = parts.diarizer.sought.known
    assert (known.name, known.sample.size) == ("Ann", 3 * RATE)
    assert {segment.speaker for segment in transcript.segments} == {"SPEAKER_00", "Ann"}


@pytest.mark.parametrize(
    "bad", [reference(1.0), reference(content=b"no sound"), reference(content=wav(pause(30)).getvalue())]
)
def test_sample_of_a_voice_is_audio_of_2_to_10_s(run, parts, bad):
    with pytest.raises(InvalidValue, match="2 to 10 s") as refused:
        run(language="en", times_words=True, diarize=True, references=(bad,))
    assert refused.value.param == "known_speaker_references"
    assert parts.log == []


def test_bad_file_is_refused(run):
    with pytest.raises(UnreadableAudio):
        run(io.BytesIO(b"no sound"), language="en")


def test_english_model_does_not_translate(run, monkeypatch):
    monkeypatch.setattr(Model, "supported_languages", ("en",))
    with pytest.raises(UnsupportedField):
        run(language="en", task="translate")
