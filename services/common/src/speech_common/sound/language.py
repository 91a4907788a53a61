"""Tell which language is spoken in a recording, by the first of its speech."""

from typing import BinaryIO

from speech_common.job import Progress
from speech_common.languages import DetectedLanguage
from speech_common.models.served import Served
from speech_common.sound.reading import Reading
from speech_common.sound.windows import first_speech

_WINDOW_S = 30.0


def detect_language(
    model: Served,
    file: BinaryIO,
    progress: Progress,
    among: tuple[str, ...] = (),
    *,
    max_audio_s: float,
) -> DetectedLanguage:
    """Tell which language is spoken in the first 30 s of speech, all of Whisper's or one of `among`.

    Without any speech it is what the model makes of the beginning. Raises as `transcribe` does.
    """
    reading = Reading(file, progress, max_audio_s)
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
