"""Cut a transcript into subtitles that can be read: at most 2 lines of 42 characters, at most 7 s, one at a time.

Owns the cutting; knows `transcript.py`, and neither SubRip nor WebVTT. Lines are broken at spaces, and within text
that is written without spaces (Chinese, Thai ...) between its characters, which count as two columns where they are
drawn as wide as two. A word longer than a line stays whole.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from speech_common.transcript import Segment

MAX_COLUMNS = 42
MAX_LINES = 2
MAX_CUE_MS = 7_000

# Scripts without spaces between words, as Unicode's names begin. Hangul has spaces.
_UNSPACED = (
    "CJK UNIFIED",
    "CJK COMPATIBILITY",
    "IDEOGRAPHIC",
    "HIRAGANA",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "BOPOMOFO",
    "THAI",
    "LAO ",
    "KHMER",
    "MYANMAR",
    "TIBETAN",
)
# Shown before the letter they follow in speech: a line must not end between the two.
_LEADING_VOWELS = frozenset("เแโใไເແໂໃໄ")
_VIRAMA = 9  # the combining class of signs that join the letter after them to the one before
_SENTENCE_ENDS = tuple(".!?…。।؟\uff01\uff1f")
_CLAUSE_ENDS = tuple(",;:،、\uff0c\uff1b\uff1a")
# Nothing is shown before a pause as long as this that is only said after it.
_PAUSE_S = 1.5


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown at a time. `start_ms` < `end_ms`, in milliseconds from the start of the audio."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


class _Atom(NamedTuple):
    """What is never divided. `space` tells whether one stood before it."""

    text: str
    space: bool
    columns: int
    start: float
    end: float


class _Piece(NamedTuple):
    """Characters `first` to `last` (spaces not counted), spoken evenly from `start` to `end`."""

    first: int
    last: int
    start: float
    end: float


def cues(segments: Iterable[Segment]) -> list[Cue]:
    """Cut `segments`, in their order. What the cues show, joined, is the segments' text; none overlaps the next.

    Words are timed by `Segment.words` where those spell the segment's text, else by their share of its characters.
    """
    shown: list[Cue] = []
    for segment in segments:
        for atoms in _blocks(_atoms(segment)):
            start_ms = max(0, round(atoms[0].start * 1000))
            if shown:
                last = shown[-1]
                # Times that run backwards are the decoder's mistakes; the order of the text is not.
                start_ms = max(start_ms, last.start_ms + 1)
                shown[-1] = Cue(last.start_ms, min(last.end_ms, start_ms), last.lines)
            end_ms = min(max(round(atoms[-1].end * 1000), start_ms + 1), start_ms + MAX_CUE_MS)
            shown.append(Cue(start_ms, end_ms, _lines(atoms)))
    return shown


def _blocks(atoms: Sequence[_Atom]) -> Iterator[Sequence[_Atom]]:
    """Divide the atoms of a segment into what is shown at a time, after a sentence or clause where one ends late."""
    while atoms:
        count = _fitting(atoms)
        if count < len(atoms) and not _pauses(atoms, count):
            count = _better_end(atoms, count)
        yield atoms[:count]
        atoms = atoms[count:]


def _fitting(atoms: Sequence[_Atom]) -> int:
    """Return how many of the first `atoms` one cue has room and time for: at least one."""
    lines, used = 1, 0
    for count, atom in enumerate(atoms):
        if count and (round((atom.end - atoms[0].start) * 1000) > MAX_CUE_MS or _pauses(atoms, count)):
            return count
        if count and used + atom.space + atom.columns > MAX_COLUMNS:
            if lines == MAX_LINES:
                return count
            lines, used = lines + 1, atom.columns
        else:
            used += atom.columns + (atom.space if count else 0)
    return len(atoms)


def _pauses(atoms: Sequence[_Atom], count: int) -> bool:
    return atoms[count].start - atoms[count - 1].end >= _PAUSE_S


def _better_end(atoms: Sequence[_Atom], count: int) -> int:
    """Return where in the second half of the first `count` atoms a sentence ends, or else a clause, or `count`."""
    for ends in (_SENTENCE_ENDS, _CLAUSE_ENDS):
        for end in range(count, count // 2, -1):
            if atoms[end - 1].text.endswith(ends):
                return end
    return count


def _lines(atoms: Sequence[_Atom]) -> tuple[str, ...]:
    """Write the atoms of a cue on as few lines as will do, two of them as equally long as can be."""
    whole = _columns(atoms)
    if whole <= MAX_COLUMNS or len(atoms) == 1:
        return (_text(atoms),)

    def unevenness(first: int) -> tuple[bool, int]:
        above, below = _columns(atoms[:first]), _columns(atoms[first:])
        return _is_too_long(atoms[:first], above) or _is_too_long(atoms[first:], below), abs(above - below)

    first = min(range(1, len(atoms)), key=unevenness)
    return _text(atoms[:first]), _text(atoms[first:])


def _is_too_long(atoms: Sequence[_Atom], columns: int) -> bool:
    return columns > MAX_COLUMNS and len(atoms) > 1


def _columns(atoms: Sequence[_Atom]) -> int:
    return sum(atom.columns + atom.space for atom in atoms) - atoms[0].space


def _text(atoms: Sequence[_Atom]) -> str:
    return "".join(" " * atom.space + atom.text for atom in atoms).removeprefix(" ")


def _atoms(segment: Segment) -> list[_Atom]:
    pieces = _pieces(segment)
    atoms: list[_Atom] = []
    spoken = 0
    for word in segment.text.split():
        for number, part in enumerate(_parts(word)):
            start = _time(pieces, spoken, at_end=False)
            spoken += len(part)
            columns = sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in part)
            end = _time(pieces, spoken, at_end=True)
            atoms.append(_Atom(part, number == 0 and bool(atoms), columns, start, end))
    return atoms


def _parts(word: str) -> Iterator[str]:
    """Divide a word where its script allows: no line begins with a mark that ends something, or ends with an opening."""
    part = ""
    for character in word:
        if part and _may_part(part[-1], character):
            yield part
            part = ""
        part += character
    yield part


def _may_part(before: str, after: str) -> bool:
    if not (_is_unspaced(before) or _is_unspaced(after)):
        return False
    # Combining signs, closing brackets, other punctuation; modifiers such as the long-vowel mark.
    if unicodedata.category(after) in ("Mn", "Mc", "Me", "Pe", "Pf", "Po", "Lm", "Cf"):
        return False
    if unicodedata.combining(before) == _VIRAMA:
        return False
    return unicodedata.category(before) not in ("Ps", "Pi", "Cf") and before not in _LEADING_VOWELS


def _is_unspaced(character: str) -> bool:
    if character < "\u0e00":
        return False
    return unicodedata.name(character, "").startswith(_UNSPACED) or (
        unicodedata.category(character) in ("Po", "Pe", "Pf")
        and unicodedata.east_asian_width(character) in "WF"
    )


def _pieces(segment: Segment) -> list[_Piece]:
    """Return the times that are known: the words' where they spell the text, else only the segment's."""
    spelt = ["".join(word.word.split()) for word in segment.words]
    text = "".join(segment.text.split())
    if not spelt or "".join(spelt) != text:
        return [_Piece(0, len(text), segment.start, segment.end)]
    pieces: list[_Piece] = []
    first = 0
    for word, letters in zip(segment.words, spelt, strict=True):
        if letters:
            pieces.append(_Piece(first, first + len(letters), word.start, word.end))
            first += len(letters)
    return pieces


def _time(pieces: Sequence[_Piece], character: int, *, at_end: bool) -> float:
    """Return when `character` begins, or, `at_end`, when the one before it ends. The piece of it shares its time out."""
    for piece in pieces:
        if piece.first <= character < piece.last or (at_end and character == piece.last):
            share = (character - piece.first) / (piece.last - piece.first)
            return piece.start + share * (piece.end - piece.start)
    raise LookupError(character)
