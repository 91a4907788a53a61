"""How one recording is transcribed, as `fields.py` reads it and the engine does it."""

from dataclasses import dataclass, field

from speech_common.sound.detection import VoiceDetection


@dataclass(frozen=True, slots=True)
class Options:
    """How one recording is transcribed.

    `language` None detects it, among `languages` if there are any (codes, at least two). `temperature` None or 0 allows
    fallback. `batch_size` is how many windows are decoded at once, at most: no more than fit the memory. None is the
    server's own choice, 1 decodes window by window. `vad_filter` leaves out what `voice` says is no speech.
    """

    task: str = "transcribe"
    language: str | None = None
    languages: tuple[str, ...] = ()
    prompt: str | None = None
    hotwords: str | None = None
    temperature: float | None = None
    beam_size: int = 5
    batch_size: int | None = None
    vad_filter: bool = False
    voice: VoiceDetection = field(default_factory=VoiceDetection)
    word_timestamps: bool = False
