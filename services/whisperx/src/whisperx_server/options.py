"""How one recording is transcribed, as `fields.py` reads it and the engine does it."""

from dataclasses import dataclass, field

from speech_common.sound.detection import VoiceDetection


@dataclass(frozen=True, slots=True)
class Reference:
    """What the client says of a speaker: a name, and the bytes of a recording of 2 to 10 s."""

    name: str
    recording: bytes


@dataclass(frozen=True, slots=True)
class Options:
    """How one recording is transcribed.

    `language` None detects it, among `languages` if there are any (codes, at least two). `batch_size` is how many windows
    are decoded at once, at most: no more than fit the memory; None is the server's own choice. `vad_filter` leaves out
    what `voice` says is no speech. `times_words` has every word timed where something can, which tells speakers apart
    better; `words_for` is the field that cannot be honoured where nothing can.
    """

    task: str = "transcribe"
    language: str | None = None
    languages: tuple[str, ...] = ()
    prompt: str | None = None
    hotwords: str | None = None
    beam_size: int = 5
    batch_size: int | None = None
    vad_filter: bool = False
    voice: VoiceDetection = field(default_factory=VoiceDetection)
    times_words: bool = False
    words_for: str | None = None
    diarize: bool = False
    min_speakers: int | None = None
    max_speakers: int | None = None
    references: tuple[Reference, ...] = ()
