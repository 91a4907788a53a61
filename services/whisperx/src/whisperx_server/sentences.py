"""Divide what was said in a stretch into sentences. Pure.

By punctuation, as Whisper writes it in most languages; without nltk, whose import takes 4 s and whose trained data would
have to be downloaded.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from speech_common.transcript import Word

from whisperx_server.said import Sentence

# Before a space; those of Chinese and Japanese need none.
_END = re.compile(r"[.!?…؟।]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[”’」』）]*")
_OPENING = " \n\"'“‘«„¿¡(["
# Titles, and what is hardly ever the last word.
_ABBREVIATION = re.compile(
    r"mrs?|ms|dr|prof|st|rev|capt|lt|sgt|gov|hon|messrs|mme|mlle|sra?|hr|vs|cf|e\.g|i\.e|bzw|z\.b|d\.h",
    re.IGNORECASE,
)
# Of somebody's name; "I" is a word.
_INITIAL = re.compile("[A-HJ-Z]")
_LAST_WORD = re.compile(r"[\w.]*\w$")


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield from where to where each sentence of a text is: all of it, each with the space before it."""
    first = 0
    for end in _END.finditer(text):
        following = text[end.end() :].lstrip(_OPENING)
        if following and not following[0].islower() and not _is_short(text[first : end.end()]):
            yield first, end.end()
            first = end.end()
    if first < len(text):
        yield first, len(text)


def sentences(words: Sequence[Word]) -> list[Sentence]:
    """Divide words that follow each other, each with the space before it."""
    text = "".join(word.word for word in words)
    starts = [first for first, _ in spans(text)]
    parts: list[list[Word]] = [[] for _ in starts]
    at = 0
    for word in words:
        # Where its last letter is: a full stop may stand on its own.
        at += len(word.word)
        parts[max(bisect_right(starts, at - 1) - 1, 0)].append(word)
    return [
        Sentence("".join(word.word for word in part), part[0].start, part[-1].end, tuple(part))
        for part in parts
        if part
    ]


def _is_short(text: str) -> bool:
    """Say whether a text ends with an abbreviation, or with an initial."""
    last = _LAST_WORD.search(text.removesuffix("."))
    if not text.endswith(".") or last is None:
        return False
    return any(short.fullmatch(last[0]) for short in (_ABBREVIATION, _INITIAL))
