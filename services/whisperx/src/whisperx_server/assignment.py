"""Who speaks each word, by whisperx's own rule: whose turns overlap it most. Imports whisperx (pandas, 1 s) on first use.

A word in nobody's turn is whisperx's to guess by the middles of turns: the end of a long turn is then the next, short one's.
So it is given turns that reach each other, as what is between two of them belongs half to each.
"""

from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise

from speech_common.transcript import Word

from whisperx_server import lean
from whisperx_server.speakers import Turn

# What has no length overlaps nothing.
_SHORTEST_S = 0.001


def by_whisperx(turns: Sequence[Turn], words: Sequence[Word]) -> list[str | None]:
    """Return the speaker of each word; None for all where there are no turns. Turns and words are in order of time."""
    if not turns or not words:
        return [None] * len(words)
    spans = import_module("pandas").DataFrame(reaching(turns), columns=["start", "end", "speaker"])
    spoken = [
        {"word": word.word, "start": word.start, "end": max(word.end, word.start + _SHORTEST_S)}
        for word in words
    ]
    segment = {"start": words[0].start, "end": words[-1].end, "text": "", "words": spoken}
    said = lean.diarize().assign_word_speakers(spans, {"segments": [segment]}, fill_nearest=True)
    return [word.get("speaker") for word in said["segments"][0]["words"]]


def reaching(turns: Sequence[Turn]) -> list[Turn]:
    """Return the turns with each silence between two of them divided among both."""
    ends = [(before.end_s + after.start_s) / 2 for before, after in pairwise(turns)]
    starts = [turns[0].start_s, *ends]
    return [
        Turn(min(start, turn.start_s), max(end, turn.end_s), turn.speaker)
        for turn, start, end in zip(turns, starts, [*ends, turns[-1].end_s], strict=True)
    ]
