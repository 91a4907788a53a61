"""What a request asks of the models: the work of a job, from the file to the transcript, in bounded memory.

Owns the order of things: which language, then who speaks, then stretch by stretch the words, when they are said and by
whom. So what would fail for want of a token, or of anything that times words, fails before the work, and a transcript can
be read with its speakers while it comes. The parts that need torch are given to it; it knows neither HTTP nor forms, nor
torch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import BinaryIO, Protocol

from speech_common.ahead import in_order, read_ahead
from speech_common.errors import UnsupportedField
from speech_common.job import Progress
from speech_common.languages import DetectedLanguage
from speech_common.models.batches import groups, within_memory
from speech_common.models.lease import UNTIMED, leased, refuse_long_hotwords, refuse_what_lacks
from speech_common.models.registry import Registry
from speech_common.models.served import Served
from speech_common.request import refuse_unknown_languages
from speech_common.sound.audio import announced_s
from speech_common.sound.language import detect_language
from speech_common.sound.reading import Reading, with_a_voice
from speech_common.sound.windows import Stretch, heard, speech, stretches
from speech_common.transcript import Rising, Segment, Transcript, Word

from whisperx_server.options import Options
from whisperx_server.references import known_speakers
from whisperx_server.said import Heard, Sentence
from whisperx_server.sentences import sentences
from whisperx_server.settings import Settings
from whisperx_server.speakers import Diarizer, Sought, Turn
from whisperx_server.turns import Speakers

# As long as whisperx's own windows at most, and each ends in a silence of its second half: the fuller, the less work.
_WINDOW_S = 28.0
_SEARCHED_S = 14.0
# Pieces of 4 s (256 kB) that are decoded from the file, and heard, beside the work on what comes before them.
_AHEAD = 15


class Aligner(Protocol):
    """Lays a text on the audio, for one language."""

    @property
    def name(self) -> str:
        """Return what the answer says of it."""

    def sentences(self, stretch: Stretch, heard: Heard) -> list[Sentence]:
        """Divide the text of a stretch, and tell when each of its words is said."""


class Parts(Protocol):
    """What needs torch, each loaded on first use."""

    @property
    def diarizer(self) -> Diarizer:
        """Return what tells speakers apart, loaded or not."""

    def assign(self, turns: Sequence[Turn], words: Sequence[Word]) -> list[str | None]:
        """Say who speaks each of the words, by the turns."""

    def hear(
        self,
        model: Served,
        group: Sequence[Stretch],
        options: Options,
        *,
        language: str,
        times_words: bool,
        check: Callable[[], None],
    ) -> list[Heard]:
        """Write down what is said in stretches, decoded as one batch."""

    def aligner(self, language: str, check: Callable[[], None]) -> Aligner | None:
        """Return what aligns that language; None where nothing can be had for it."""


class Engine:
    """Does the work, in the thread that calls; any number of threads may."""

    def __init__(self, registry: Registry[Served], settings: Settings, parts: Parts) -> None:
        self._registry = registry
        self._settings = settings
        self._parts = parts

    def run(self, model: str, file: BinaryIO, options: Options, progress: Progress) -> Transcript:
        """Write down what is said in `file`, and by whom, with the model of that name, as `Registry.resolve` gave it.

        Blocks. Raises UnreadableAudio and its kinds, a FieldError, DiarizationUnavailable, what `leased` raises, or what
        `progress.check` does.
        """
        known = known_speakers(options.references)
        with leased(self._registry, model, progress) as whisper:
            refuse_what_lacks(whisper.facts, detects=options.language is None)
            refuse_unknown_languages(options, whisper.supported_languages)
            refuse_long_hotwords(whisper, options.hotwords)
            if options.diarize:
                self._parts.diarizer.load(progress.check)
            progress.known(duration_s=announced_s(file, self._settings.max_audio_s))
            language = options.language or self._language(whisper, file, options, progress)
            written_in = "en" if options.task == "translate" else language
            progress.known(language=written_in)
            aligner = self._aligner(whisper, options, language, progress)
            speakers = None
            if options.diarize:
                sought = Sought(options.min_speakers, options.max_speakers, known)
                pieces = heard(Reading(file, progress, self._settings.max_audio_s).blocks())
                turns = self._parts.diarizer.turns(pieces, sought, progress.check)
                speakers = Speakers(turns, [each.name for each in known], self._parts.assign)
            recording = _Recording(
                self._parts,
                whisper,
                options,
                progress,
                language=language,
                aligner=aligner,
                speakers=speakers,
            )
            reading = Reading(file, progress, self._settings.max_audio_s)
            return recording.transcribe(reading, self._settings.batch_size, written_in)

    def detect_language(self, model: str, file: BinaryIO, progress: Progress) -> DetectedLanguage:
        """Tell which language is spoken in `file`. Blocks and raises as `run` does."""
        with leased(self._registry, model, progress) as whisper:
            refuse_what_lacks(whisper.facts, detects=True)
            return detect_language(whisper, file, progress, max_audio_s=self._settings.max_audio_s)

    def _language(self, whisper: Served, file: BinaryIO, options: Options, progress: Progress) -> str:
        return detect_language(
            whisper, file, progress, options.languages, max_audio_s=self._settings.max_audio_s
        ).code

    def _aligner(
        self, whisper: Served, options: Options, language: str, progress: Progress
    ) -> Aligner | None:
        """Return what lays the text on the audio, if anything does.

        Raises UnsupportedField where a field is for words with times, and nothing tells these.
        """
        # A text in another language than the audio cannot be laid on it.
        is_aligned = options.times_words and options.task == "transcribe"
        aligner = self._parts.aligner(language, progress.check) if is_aligned else None
        if options.words_for and aligner is None and not whisper.facts.times_words:
            reason = UNTIMED
            if is_aligned:
                reason += f", and there is no alignment model for {language} (ALIGN_MODELS_DIR)"
            raise UnsupportedField(options.words_for, reason)
        return aligner


class _Recording:
    """One recording's way from its windows to its segments."""

    def __init__(
        self,
        parts: Parts,
        model: Served,
        options: Options,
        progress: Progress,
        *,
        language: str,
        aligner: Aligner | None,
        speakers: Speakers | None,
    ) -> None:
        self._parts = parts
        self._model = model
        self._options = options
        self._language = language
        self._speakers = speakers
        self._progress = progress
        self._aligner = aligner
        self._times_words = options.times_words and aligner is None and model.facts.times_words
        self._count = 0
        self._times = Rising()

    def transcribe(self, reading: Reading, batch_size: int, written_in: str) -> Transcript:
        """Decode all of it, telling each segment as soon as it is known."""
        options, progress = self._options, self._progress
        size = within_memory(self._model, options.beam_size, options.batch_size, batch_size)
        segments: list[Segment] = []
        with closing(read_ahead(heard(reading.blocks()), _AHEAD)) as pieces:
            spoken = speech(pieces, options.voice) if options.vad_filter else pieces
            for stretch, said in self._heard(stretches(spoken, _WINDOW_S, _SEARCHED_S), size):
                progress.check()
                for segment in self._segments(stretch, said):
                    progress.said(segment)
                    segments.append(segment)
                progress.heard(stretch.end_s)
        progress.heard(reading.until_s)  # it may end with a silence that nobody decoded
        return Transcript(
            task=options.task,
            language=written_in,
            duration_s=reading.until_s,
            segments=tuple(segments),
            alignment=self._aligner.name if self._aligner else None,
        )

    def _heard(self, windows: Iterable[Stretch], size: int) -> Iterator[tuple[Stretch, Heard]]:
        streams = self._model.streams
        calls = (
            partial(self._hear, group)
            for group in groups(with_a_voice(windows, self._progress), max(1, size // streams))
        )
        for group in in_order(calls, streams):
            yield from group

    def _hear(self, group: tuple[Stretch, ...]) -> list[tuple[Stretch, Heard]]:
        said = self._parts.hear(
            self._model,
            group,
            self._options,
            language=self._language,
            times_words=self._times_words,
            check=self._progress.check,
        )
        return list(zip(group, said, strict=True))

    def _segments(self, stretch: Stretch, said: Heard) -> Iterator[Segment]:
        if not said.text.strip():
            return
        for sentence in self._sentences(stretch, said):
            words = tuple(self._word(stretch, word) for word in sentence.words)
            if not words:
                yield self._wordless(stretch, said, sentence)
            elif self._speakers is None:
                yield self._segment(stretch, said, sentence.text, words, (words[0].start, words[-1].end))
            else:
                for part in self._speakers.split(words):
                    text = "".join(word.word for word in part)
                    yield self._segment(stretch, said, text, part, (part[0].start, part[-1].end))

    def _wordless(self, stretch: Stretch, said: Heard, sentence: Sentence) -> Segment:
        """Return what nothing tells the words' times of: all of it is whose turns are most of it."""
        start_s, end_s = self._times.risen(*stretch.recorded(sentence.start_s, sentence.end_s, 0.0))
        segment = self._segment(stretch, said, sentence.text, (), (start_s, end_s))
        if self._speakers is None:
            return segment
        ((whole,),) = self._speakers.split((Word(sentence.text, start_s, end_s),))
        return replace(segment, speaker=whole.speaker)

    def _sentences(self, stretch: Stretch, said: Heard) -> list[Sentence]:
        if self._aligner is not None:
            return self._aligner.sentences(stretch, said)
        if said.words:
            return sentences(said.words)
        return [Sentence(said.text, 0.0, stretch.duration_s, ())]

    def _segment(
        self, stretch: Stretch, said: Heard, text: str, words: tuple[Word, ...], span: tuple[float, float]
    ) -> Segment:
        number, self._count = self._count, self._count + 1
        return Segment(
            id=number,
            start=span[0],
            end=span[1],
            text=text,
            seek=round(stretch.start_s * self._model.frames_per_second),
            avg_logprob=said.avg_logprob,
            compression_ratio=said.compression_ratio,
            words=words,
            speaker=words[0].speaker if words else None,
        )

    def _word(self, stretch: Stretch, word: Word) -> Word:
        start_s, end_s = self._times.risen(*stretch.recorded(word.start, word.end))
        return Word(word.word, start_s, end_s, word.probability)
