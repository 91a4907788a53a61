"""What a caller may say of voice detection. Imports nothing: forms are read before anything heavy is loaded."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VoiceDetection:
    """How speech is told from silence, as `chunking_strategy` says it; None is the server's own measure.

    `threshold` is the probability from which a stretch is speech (0 to 1), `prefix_padding_ms` what is kept before and
    after speech, `silence_duration_ms` how long a silence must be to end it.
    """

    threshold: float | None = None
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None
