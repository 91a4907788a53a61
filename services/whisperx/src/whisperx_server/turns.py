"""Who said which word: from timed words and the turns of a diarization to segments with one speaker each.

Pure; knows neither models nor audio. Times are seconds from the start of the recording.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from speech_common.formats import UNKNOWN_SPEAKER
from speech_common.transcript import Word

from whisperx_server.speakers import Turn

Assign = Callable[[Sequence[Turn], Sequence[Word]], list[str | None]]
"""Says who speaks each of the words, by the turns: whisperx's own way, in `assignment.py`."""


class Speakers:
    """Who speaks when in one recording, and what they are called: in the order of their first words, unless known."""

    def __init__(self, turns: Sequence[Turn], known: Iterable[str], assign: Assign) -> None:
        self._turns = sorted(turns)
        self._starts = [turn.start_s for turn in self._turns]
        self._names = {name: name for name in known}
        self._unknown = 0
        self._assign = assign

    def split(self, words: Sequence[Word]) -> Iterator[tuple[Word, ...]]:
        """Divide words that follow each other where the speaker changes; each of them tells its speaker from then on."""
        if not words:
            return
        labels = self._assign(self._near(words[0].start, words[-1].end), words)
        spoken = [replace(word, speaker=self._name(label)) for word, label in zip(words, labels, strict=True)]
        for _, said in groupby(spoken, key=lambda word: word.speaker):
            yield tuple(said)

    def _near(self, start_s: float, end_s: float) -> Sequence[Turn]:
        """Return the turns from start to end, with the one before and the one after: a word may be in none."""
        first = max(bisect_right(self._starts, start_s) - 2, 0)
        return self._turns[first : bisect_left(self._starts, end_s) + 1]

    def _name(self, label: str | None) -> str | None:
        if label is not None and label not in self._names:
            self._names[label] = f"{UNKNOWN_SPEAKER}{self._unknown:02d}"
            self._unknown += 1
        return None if label is None else self._names[label]
