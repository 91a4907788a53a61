"""What is done with one uploaded recording, from the file to the transcript, in bounded memory.

Owns the order of things and the choice between window by window and batches. Knows models, options and progress; not
where the model comes from, nor who asks. Blocks, in the thread of its caller.
"""

import logging
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, islice
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from speech_common.audio import SAMPLE_RATE, announced_s, decoded_blocks
from speech_common.errors import InvalidValue
from speech_common.job import Progress
from speech_common.languages import DetectedLanguage
from speech_common.transcript import Segment, Transcript

from whisper_server.ahead import read_ahead
from whisper_server.model import Model
from whisper_server.options import Options
from whisper_server.transcribe import Transcriber
from whisper_server.windows import Piece, first_speech, heard, speech, stretches

_log = logging.getLogger("whisper")
_WINDOW_S = 30.0
# A batch's windows end in a silence of their second half; the fuller, the less work. What is said at the very end of
# the model's window it seldom hears out.
_BATCHED_S = 28.0
_BATCHED_SEARCHED_S = 14.0
# Pieces of 4 s (256 kB) that are decoded from the file, and heard, beside the work on what comes before them.
_AHEAD = 15
# On the CPU more windows at a time are hardly any faster. Each takes memory: over the loaded whisper-base (int8, a beam
# of 5, 200 s of speech, two batches at once) 2 windows took 320 MB at most and 4 took 420 MB, some 2.4 times what the
# decoder keeps of one for each; 400 MB is the limit.
_BATCH_ON_CPU = 4
_BATCH_MEMORY_BYTES = 250e6
_SHARE_OF_BEAMS = 2.4
_USUAL_BEAMS = 5
_BATCH_ON_CUDA = 16
# The model's window has 448 tokens, of which up to 223 go to the prompt or to what was said before. The library lets
# hotwords take all the rest, and then, without a word, there is no room left for a transcript.
_HOTWORD_TOKENS = 112


def transcribe(
    model: Model, file: BinaryIO, options: Options, progress: Progress, *, batch_size: int, max_audio_s: float
) -> Transcript:
    """Write down what is said in `file`, telling `progress` as it goes. `batch_size` 0 chooses by the device.

    Raises UnreadableAudio and its kinds, a FieldError for what this model is not made for, or what `progress.check`
    raises. That the end of a file is missing may show only at the end.
    """
    _refuse_what_it_lacks(model, options)
    progress.known(duration_s=announced_s(file, max_audio_s))
    language = options.language
    if language is None:
        language = detect_language(model, file, progress, options.languages, max_audio_s=max_audio_s).code
    written_in = "en" if options.task == "translate" else language
    progress.known(language=written_in)
    reading = _Reading(file, progress, max_audio_s)
    transcriber = Transcriber(model, options, language, progress)
    segments: list[Segment] = []
    with closing(read_ahead(heard(reading.blocks()), _AHEAD)) as pieces:
        spoken = speech(pieces, options.voice) if options.vad_filter else pieces
        for segment in _segments(transcriber, spoken, within_memory(model, options, batch_size)):
            progress.said(segment)
            segments.append(segment)
    progress.heard(reading.until_s)  # it may end with a silence that nobody decoded
    if transcriber.doubts:
        _log.debug("event=doubts %s", " ".join(f"{why}={count}" for why, count in transcriber.doubts.items()))
    return Transcript(
        task=options.task,
        language=written_in,
        duration_s=reading.until_s,
        segments=tuple(segments),
    )


def detect_language(
    model: Model,
    file: BinaryIO,
    progress: Progress,
    among: tuple[str, ...] = (),
    *,
    max_audio_s: float,
) -> DetectedLanguage:
    """Tell which language is spoken in the first 30 s of speech, all of Whisper's or one of `among`.

    Without any speech it is what the model makes of the beginning. Raises as `transcribe` does.
    """
    reading = _Reading(file, progress, max_audio_s)
    if not model.model.is_multilingual:
        next(reading.blocks())  # a file without sound is refused all the same
        return DetectedLanguage("en", 1.0, reading.until_s)
    opening = first_speech(reading.blocks(), _WINDOW_S)
    with model.checked_by(lambda _: progress.check()):
        _, _, likely = model.detect_language(audio=opening)
    code, probability = max(
        ((code, share) for code, share in likely if not among or code in among), key=lambda each: each[1]
    )
    return DetectedLanguage(code, float(probability), reading.until_s)


def _refuse_what_it_lacks(model: Model, options: Options) -> None:
    """Raise a FieldError for what this model cannot do."""
    options.refuse_what_lacks(model.supported_languages)
    if options.hotwords and len(model.hf_tokenizer.encode(options.hotwords)) > _HOTWORD_TOKENS:
        raise InvalidValue("hotwords", options.hotwords, f"at most {_HOTWORD_TOKENS} tokens, some 80 words")


def _segments(transcriber: Transcriber, pieces: Iterator[Piece], batch_size: int) -> Iterator[Segment]:
    if batch_size == 1:
        return transcriber.sequential(pieces)
    windows = stretches(pieces, _BATCHED_S, _BATCHED_SEARCHED_S)
    first = list(islice(windows, 2))
    if len(first) < 2:
        return transcriber.sequential(chain.from_iterable(one.pieces for one in first))
    return transcriber.batched(chain(first, windows), batch_size)


def within_memory(model: Model, options: Options, configured: int) -> int:
    """Return how many windows to decode at once: what the client wants, at most what was configured or fits."""
    beams = _USUAL_BEAMS if options.temperature else options.beam_size
    fitting = fitting_batch(model.model.device, model.heard_bytes, beams)
    return min(options.batch_size or configured or fitting, max(configured, fitting))


def fitting_batch(device: str, heard_bytes: int, beams: int = _USUAL_BEAMS) -> int:
    """Return how many windows to decode at once, by what a model's decoder keeps of one, and for how many beams."""
    if device == "cuda":
        return _BATCH_ON_CUDA
    share = _SHARE_OF_BEAMS * max(1.0, beams / _USUAL_BEAMS)
    return max(1, min(_BATCH_ON_CPU, int(_BATCH_MEMORY_BYTES / max(1.0, share * heard_bytes))))


class _Reading:
    """A file on its way through the decoder, and how far that has come."""

    def __init__(self, file: BinaryIO, progress: Progress, max_audio_s: float) -> None:
        self._file = file
        self._progress = progress
        self._max_audio_s = max_audio_s
        self._samples = 0

    @property
    def until_s(self) -> float:
        return self._samples / SAMPLE_RATE

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        for block in decoded_blocks(self._file, self._max_audio_s):
            self._progress.check()
            self._samples += block.size
            yield block
