"""Who speaks which word, by whisperx."""

import subprocess
import sys

from speech_common.transcript import Word
from whisperx_server.assignment import by_whisperx
from whisperx_server.speakers import Turn

LOOK = """
import sys
from speech_common.transcript import Word
from whisperx_server.assignment import by_whisperx
from whisperx_server.speakers import Turn
assert by_whisperx([Turn(0, 1, "A")], [Word("a", 0, 1)]) == ["A"]
print([name for name in ("pyannote.audio", "senko", "transformers") if name in sys.modules])
"""
TURNS = [Turn(1.0, 9.0, "A"), Turn(10.0, 11.0, "B"), Turn(13.0, 14.0, "A")]


def assigned(*spans, turns=TURNS):
    return by_whisperx(turns, [Word("word", start_s, end_s) for start_s, end_s in spans])


def test_a_word_is_of_whose_turn_it_is_in():
    assert assigned((1.5, 2.0), (10.2, 10.4), (13.0, 13.5)) == ["A", "B", "A"]


def test_a_word_in_two_turns_is_of_the_one_it_is_more_in():
    turns = [Turn(0.0, 1.0, "A"), Turn(1.0, 2.0, "B")]
    assert assigned((0.5, 1.4), (0.7, 1.4), turns=turns) == ["A", "B"]


def test_a_word_in_no_turn_is_of_the_nearest():
    assert assigned((0.0, 0.5), (9.1, 9.3), (9.6, 9.9), (11.2, 11.4), (12.5, 12.9), (14.5, 15.0)) == [
        "A",
        "A",
        "B",
        "B",
        "A",
        "A",
    ]


def test_a_word_of_no_length_is_somebodys():
    assert assigned((10.5, 10.5), (9.1, 9.1)) == ["B", "A"]


def test_without_turns_nobody_speaks():
    assert assigned((1.0, 2.0), (2.0, 3.0), turns=[]) == [None, None]


def test_without_words_nobody_speaks():
    assert assigned() == []


def test_pyannote_is_not_imported_for_it():
    looked = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert looked.stdout.strip() == "[]"
