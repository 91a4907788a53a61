"""What is done with one uploaded recording, from the file to the transcript, in bounded memory.

Owns the order of things and the choice between window by window and batches. Knows models, options and progress; not
where the model comes from, nor who asks. Blocks, in the thread of its caller.
"""

import logging
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, islice
from typing import BinaryIO

from speech_common.ahead import read_ahead
from speech_common.job import Progress
from speech_common.models.batches import within_memory
from speech_common.models.lease import refuse_long_hotwords
from speech_common.request import refuse_unknown_languages
from speech_common.sound.audio import announced_s
from speech_common.sound.language import detect_language
from speech_common.sound.reading import Reading
from speech_common.sound.windows import Piece, heard, speech, stretches
from speech_common.transcript import Segment, Transcript

from whisper_server.decoder import SAMPLES_OF
from whisper_server.model import Model
from whisper_server.options import Options
from whisper_server.transcribe import Transcriber

_log = logging.getLogger("whisper")
# A batch's windows end in a silence of their second half; the fuller, the less work. What is said at the very end of
# the model's window it seldom hears out.
_BATCHED_S = 28.0
_BATCHED_SEARCHED_S = 14.0
# Pieces of 4 s (256 kB) that are decoded from the file, and heard, beside the work on what comes before them.
_AHEAD = 15


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
    reading = Reading(file, progress, max_audio_s)
    transcriber = Transcriber(model, options, language, progress)
    segments: list[Segment] = []
    with closing(read_ahead(heard(reading.blocks()), _AHEAD)) as pieces:
        spoken = speech(pieces, options.voice) if options.vad_filter else pieces
        for segment in _segments(transcriber, spoken, _batch(model, options, batch_size)):
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


def _refuse_what_it_lacks(model: Model, options: Options) -> None:
    """Raise a FieldError for what this model cannot do."""
    refuse_unknown_languages(options, model.supported_languages)
    refuse_long_hotwords(model, options.hotwords)


def _segments(transcriber: Transcriber, pieces: Iterator[Piece], batch_size: int) -> Iterator[Segment]:
    if batch_size == 1:
        return transcriber.sequential(pieces)
    windows = stretches(pieces, _BATCHED_S, _BATCHED_SEARCHED_S)
    first = list(islice(windows, 2))
    if len(first) < 2:
        return transcriber.sequential(chain.from_iterable(one.pieces for one in first))
    return transcriber.batched(chain(first, windows), batch_size)


def _batch(model: Model, options: Options, configured: int) -> int:
    beams = SAMPLES_OF if options.temperature else options.beam_size
    return within_memory(model, beams, options.batch_size, configured)
