"""Cut a recording into stretches at its silences, in bounded memory.

Owns where the cuts are, and the way back from a stretch's time to the recording's. From decoded blocks to pieces in
which a voice was heard or not, all of them or only what is speech, and from those to stretches. Audio is float32,
mono, 16 kHz `[samples]`. All cuts are between frames of the detector, so what it heard of a piece is heard once.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from speech_common.sound.audio import SAMPLE_RATE
from speech_common.sound.detection import VoiceDetection
from speech_common.sound.voice import FRAME, FRAME_S, Detector, any_voice

# Longer silences are no better a place to cut than this one; among those the last is taken, for full windows.
_LONG_ENOUGH_S = 0.5
_SILENT = 0.3
# What is heard at once: 4 s.
_SLAB = 125 * FRAME
# Where a caller does not say: as the library has it.
_THRESHOLD = 0.5
_HYSTERESIS = 0.15
_PADDING_MS = 400
_SILENCE_MS = 2000
# What is shorter is not cut in two. Of the voices in a recording, this much at most is collected, and audio of this
# length is looked at for more than a little of it.
_LITTLE_S = 5.0
_LOOKED_AT_S = 600.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples that follow each other in the recording, the first of them number `first` there.

    `likely` says of each frame how likely a voice is. Only the last frame of a recording may not be full.
    """

    first: int
    samples: NDArray[np.float32]
    likely: NDArray[np.float32]

    def part(self, begin: int, end: int) -> "Piece":
        """Return the frames from `begin` to `end`, without copying them."""
        samples = self.samples[begin * FRAME : end * FRAME]
        return Piece(self.first + begin * FRAME, samples, self.likely[begin:end])


class Stretch:
    """Pieces of a recording, joined, to be decoded at once. Times within it are seconds from its start."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        pieces = tuple(pieces)
        self.samples = np.concatenate([piece.samples for piece in pieces])
        self.likely = np.concatenate([piece.likely for piece in pieces])
        """How likely a voice is in each of its frames."""
        self.pieces = tuple(_merged(pieces, self.samples, self.likely))
        """The fewest that say where its samples are from."""
        self._starts = np.cumsum([0, *(piece.samples.size for piece in self.pieces[:-1])])

    @property
    def duration_s(self) -> float:
        """Return how long its audio is."""
        return float(self.samples.size / SAMPLE_RATE)

    @property
    def start_s(self) -> float:
        """Return where in the recording it begins."""
        return self.pieces[0].first / SAMPLE_RATE

    @property
    def end_s(self) -> float:
        """Return where in the recording it ends."""
        last = self.pieces[-1]
        return (last.first + last.samples.size) / SAMPLE_RATE

    def recorded(self, start_s: float, end_s: float, seam_s: float = math.inf) -> tuple[float, float]:
        """Return from when to when in the recording something is.

        What begins less than `seam_s` before the seam of two pieces begins after it, and what ends less than that
        after a seam ends before it; so by default, all of it is in the piece that has its middle.
        """
        near_s = min(seam_s, (end_s - start_s) / 2)
        return self._at(start_s, start_s + near_s, "right"), self._at(end_s, end_s - near_s, "left")

    def _at(self, time_s: float, within_s: float, side: Literal["left", "right"]) -> float:
        """Return where in the recording a time is, or that end of the piece with `within_s` which is nearest."""
        number = max(0, int(np.searchsorted(self._starts, within_s * SAMPLE_RATE, side)) - 1)
        piece = self.pieces[number]
        sample = min(max(time_s * SAMPLE_RATE - self._starts[number], 0.0), float(piece.samples.size))
        return float(piece.first + sample) / SAMPLE_RATE

    def may_speak(self, start_s: float = 0.0, end_s: float = math.inf) -> bool:
        """Say whether there may be a voice, in all of it or from start to end."""
        first = int(max(start_s, 0.0) / FRAME_S)
        return any_voice(self.likely[first : math.ceil(min(end_s, self.duration_s) / FRAME_S)])

    def halves(self) -> "tuple[Stretch, ...]":
        """Return it in two, cut at the best silence of its middle half; one too short for that in one."""
        quarter = self.likely.size // 4
        if quarter * FRAME_S < _LITTLE_S / 2:
            return (self,)
        return self._split(quarter + best_cut(self.likely[quarter : 3 * quarter]))

    def since(self, time_s: float, within_s: float) -> "Stretch":
        """Return what follows the best silence that is so near to a time."""
        first, last = (int((time_s + away_s) / FRAME_S) for away_s in (-within_s, within_s))
        near = self.likely[max(first, 0) : last + 1]
        return self._split(max(first, 0) + best_cut(near))[-1]

    def _split(self, frame: int) -> "tuple[Stretch, ...]":
        held = deque(self.pieces)
        before = tuple(_taken(held, frame))
        return (Stretch(before), Stretch(held)) if before else (self,)


def _merged(
    pieces: Iterable[Piece], samples: NDArray[np.float32], likely: NDArray[np.float32]
) -> Iterator[Piece]:
    """Join what follows each other in the recording; `samples` and `likely` are those of all pieces."""
    joined = Piece(0, samples, likely)
    first = begin = end = 0
    for piece in pieces:
        if piece.first != first + (end - begin) * FRAME:
            if end > begin:
                yield replace(joined.part(begin, end), first=first)
            first, begin = piece.first, end
        end += piece.likely.size
    yield replace(joined.part(begin, end), first=first)


class Held:
    """Pieces of a recording in their order: those that were read and not dropped yet."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._unread = iter(pieces)
        self._pieces: deque[Piece] = deque()
        self._frames = 0

    def read(self, frames: int) -> int:
        """Read on until so many frames are held, and return how many are: fewer only at the recording's end."""
        while self._frames < frames and (piece := next(self._unread, None)) is not None:
            self._pieces.append(piece)
            self._frames += piece.likely.size
        return self._frames

    def likely(self, first: int, last: int) -> NDArray[np.float32]:
        """Return how likely a voice is in each of those frames."""
        return np.concatenate([piece.likely for piece in self._pieces])[first:last]

    def first(self, frames: int) -> Stretch:
        """Return the first frames, and keep them."""
        return Stretch(_taken(deque(self._pieces), frames))

    def take(self, frames: int) -> Stretch:
        """Return the first frames, and drop them."""
        self._frames -= frames
        return Stretch(_taken(self._pieces, frames))

    def drop(self, frames: int) -> None:
        """Drop the first frames."""
        self._frames -= frames
        deque(_taken(self._pieces, frames), maxlen=0)


def stretches(pieces: Iterable[Piece], longest_s: float, searched_s: float) -> Iterator[Stretch]:
    """Join pieces to stretches of at most `longest_s`, each ending in a silence of its last `searched_s`.

    Every sample is in exactly one stretch. At most one stretch is in memory, beside what the caller keeps.
    """
    longest, searched = int(longest_s / FRAME_S), int(searched_s / FRAME_S)
    held = Held(pieces)
    while frames := held.read(longest + 1):
        if frames > longest:
            frames = longest - searched + best_cut(held.likely(longest - searched, longest))
        yield held.take(frames)


def _taken(held: deque[Piece], frames: int) -> Iterator[Piece]:
    """Take the first frames out of what is held, without copying them."""
    while frames:
        piece = held.popleft()
        if piece.likely.size > frames:
            held.appendleft(piece.part(frames, piece.likely.size))
            piece = piece.part(0, frames)
        frames -= piece.likely.size
        yield piece


def best_cut(likely: NDArray[np.float32]) -> int:
    """Return the frame before which a cut does the least harm, by how likely a voice is in each.

    That is the middle of the longest silence; without any, the frame that is least like speech.
    """
    silent = np.flatnonzero(np.diff(np.concatenate([[0], likely < _SILENT, [0]])))
    runs = [
        (min((end - start) * FRAME_S, _LONG_ENOUGH_S), start, end) for start, end in silent.reshape(-1, 2)
    ]
    if not runs:
        return int(np.argmin(likely))
    _, start, end = max(runs)
    return int(start + end) // 2


def heard(blocks: Iterable[NDArray[np.float32]]) -> Iterator[Piece]:
    """Number the samples of a recording's blocks, and hear where there is a voice."""
    detector = Detector()
    first = 0
    for slab in _slabs(blocks):
        yield Piece(first, slab, detector.hear(slab))
        first += slab.size


def _slabs(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Join blocks to slabs of whole frames; only the last may be shorter."""
    held: list[NDArray[np.float32]] = []
    size = 0
    for block in blocks:
        held.append(block)
        size += block.size
        while size >= _SLAB:
            joined = np.concatenate(held)
            yield joined[:_SLAB]
            held, size = [joined[_SLAB:]], size - _SLAB
    if size:
        yield np.concatenate(held)


def speech(pieces: Iterable[Piece], voice: VoiceDetection) -> Iterator[Piece]:
    """Keep of a recording's pieces what is speech, with some padding."""
    threshold = _THRESHOLD if voice.threshold is None else voice.threshold
    padding_ms = _PADDING_MS if voice.prefix_padding_ms is None else voice.prefix_padding_ms
    silence_ms = _SILENCE_MS if voice.silence_duration_ms is None else voice.silence_duration_ms
    padding, patience = round(padding_ms / 1000 / FRAME_S), max(1, round(silence_ms / 1000 / FRAME_S))
    held: deque[Piece] = deque()  # what is kept only if a voice follows
    quiet = padding + patience  # frames since the last one with a voice
    for frame in _frames(pieces):
        if frame.likely[0] >= threshold - (_HYSTERESIS if quiet < patience else 0.0):
            quiet = 0
            yield from held
            held.clear()
            yield frame
            continue
        quiet += 1
        if quiet <= padding:
            yield frame
        else:
            held.append(frame)
        while quiet >= patience and len(held) > padding:
            held.popleft()


def _frames(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Return each frame on its own, copied: what is kept of a piece is not to keep all of it in memory."""
    for piece in pieces:
        for number in range(piece.likely.size):
            frame = piece.part(number, number + 1)
            yield Piece(frame.first, frame.samples.copy(), frame.likely)


def first_speech(blocks: Iterable[NDArray[np.float32]], wanted_s: float) -> NDArray[np.float32]:
    """Return the first `wanted_s` of speech; the recording's first seconds where it has none.

    Stops reading when it has them, or after 10 minutes with only a little speech.
    """
    wanted = int(wanted_s * SAMPLE_RATE)
    opening: list[NDArray[np.float32]] = []
    found: list[NDArray[np.float32]] = []
    opening_size = found_size = 0

    def watched() -> Iterator[NDArray[np.float32]]:
        nonlocal opening_size
        seen = 0
        for block in blocks:
            if opening_size < wanted:
                opening.append(block)
                opening_size += block.size
            seen += block.size
            yield block
            if seen > _LOOKED_AT_S * SAMPLE_RATE and found_size > _LITTLE_S * SAMPLE_RATE:
                return

    for piece in speech(heard(watched()), VoiceDetection()):
        found.append(piece.samples)
        found_size += piece.samples.size
        if found_size >= wanted:
            break
    return np.concatenate(found or opening or [np.zeros(0, np.float32)])[:wanted]
