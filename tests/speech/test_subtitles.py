"""Subtitles that can be read: short lines, short cues, one at a time, and nothing of the text lost."""

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_common.subtitles import Cue, cues
from speech_common.transcript import Segment, Word

PLAIN_WORDS = st.text("abcdéfgß'.,!?-", min_size=1, max_size=60)
UNSPACED_WORDS = st.text("日本語話すヒラ、。「」ーไทยเป็กา日", min_size=1, max_size=80)
TIMES = st.floats(-5, 20_000, allow_nan=False)


@st.composite
def segments(draw, words=PLAIN_WORDS):
    """Segments in any order and of any length, some with times of words, some with times of other words."""
    start, end = draw(TIMES), draw(TIMES)
    spoken = draw(st.lists(words, max_size=12))
    gap = draw(st.sampled_from([" ", "\n", " \u3000\r\n"]))
    timed = ()
    if draw(st.booleans()):
        times = draw(st.lists(st.tuples(TIMES, TIMES), min_size=len(spoken), max_size=len(spoken)))
        timed = tuple(Word(f" {word}", *time) for word, time in zip(spoken, times, strict=True))
        if draw(st.booleans()):
            timed = timed[:-1]
    return Segment(0, start, end, "".join(f"{gap}{word}" for word in spoken), words=timed)


def words_of(shown):
    return " ".join(line for cue in shown for line in cue.lines).split()


def columns(line):
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


@given(st.lists(segments(), max_size=3))
def test_every_word_is_shown_once_and_in_order(said):
    assert words_of(cues(said)) == "".join(f" {segment.text}" for segment in said).split()


@given(st.lists(segments(UNSPACED_WORDS), max_size=3))
def test_every_character_of_text_without_spaces_is_shown_once_and_in_order(said):
    assert "".join(words_of(cues(said))) == "".join("".join(segment.text.split()) for segment in said)


@given(st.lists(segments(PLAIN_WORDS | UNSPACED_WORDS), max_size=3))
def test_no_cue_is_longer_than_seven_seconds_or_shown_with_the_next(said):
    shown = cues(said)
    for cue in shown:
        assert 0 <= cue.start_ms < cue.end_ms <= cue.start_ms + 7000
    for cue, following in itertools.pairwise(shown):
        assert cue.end_ms <= following.start_ms


@given(st.lists(segments(), max_size=3))
def test_no_cue_has_more_than_two_lines_of_42_characters_but_for_a_longer_word(said):
    for cue in cues(said):
        assert 1 <= len(cue.lines) <= 2
        for line in cue.lines:
            assert line == line.strip()
            assert 1 <= len(line) <= 42 or " " not in line


@given(st.lists(segments(st.text("日本語話すヒラไทยกา", min_size=1, max_size=200)), max_size=3))
def test_text_without_spaces_is_broken_to_42_columns(said):
    assert all(columns(line) <= 42 for cue in cues(said) for line in cue.lines)


def lines_of(text, start=0.0, end=5.0, words=()):
    return [cue.lines for cue in cues([Segment(0, start, end, text, words=tuple(words))])]


def test_short_text_is_one_line():
    assert lines_of(" Mr. Knightley is no flatterer.") == [("Mr. Knightley is no flatterer.",)]


def test_two_lines_are_about_equally_long():
    text = " Selfish and stupid, she was altogether ill at ease."
    assert lines_of(text) == [("Selfish and stupid, she", "was altogether ill at ease.")]


def test_line_of_42_characters_is_not_broken_and_one_of_43_is():
    assert lines_of("a" * 20 + " " + "b" * 21) == [("a" * 20 + " " + "b" * 21,)]
    assert lines_of("a" * 20 + " " + "b" * 22) == [("a" * 20, "b" * 22)]


def test_word_longer_than_a_line_is_kept_whole():
    assert lines_of("so " + "x" * 50 + " it is") == [("so", "x" * 50), ("it is",)]


def test_cue_ends_with_its_sentence_where_one_ends_late():
    text = (
        "One two three four five six seven eight nine ten eleven twelve. Thirteen fourteen fifteen sixteen."
    )
    assert lines_of(text) == [
        ("One two three four five six seven", "eight nine ten eleven twelve."),
        ("Thirteen fourteen fifteen sixteen.",),
    ]


@pytest.mark.parametrize("before", range(8, 30))
def test_no_line_begins_with_a_mark_that_ends_or_ends_with_one_that_begins(before):
    text = "天" * before + "。「地" + "人" * 12
    lines = [line for shown in lines_of(text) for line in shown]
    assert "".join(lines) == text
    assert not any(line.startswith("。") or line.endswith("「") for line in lines)


def test_thai_letters_stay_with_their_signs():
    for shown in lines_of("ที่นี่" * 40):
        assert all(unicodedata.category(line[0]) == "Lo" for line in shown)


def test_words_with_times_begin_and_end_the_cues():
    words = [Word(f" word{number:02}", number * 1.0, number + 0.5) for number in range(12)]
    said = Segment(0, 0.0, 30.0, "".join(word.word for word in words), words=tuple(words))
    assert [(cue.start_ms, cue.end_ms) for cue in cues([said])] == [(0, 6500), (7000, 11_500)]


def test_without_times_of_words_the_segment_is_shared_out_by_characters():
    said = Segment(0, 10.0, 20.0, " aaaaa bbbbb ccccc ddddd")
    assert cues([said]) == [Cue(10_000, 15_000, ("aaaaa bbbbb",)), Cue(15_000, 20_000, ("ccccc ddddd",))]


def test_words_that_do_not_spell_the_text_are_no_times_of_it():
    said = Segment(0, 0.0, 4.0, " Good morning.", words=(Word(" Bad", 1.0, 2.0), Word(" morning.", 2.0, 3.0)))
    assert cues([said]) == [Cue(0, 4000, ("Good morning.",))]


def test_nothing_is_shown_before_a_pause_that_is_said_after_it():
    words = (Word(" Yes.", 0.0, 0.5), Word(" No.", 3.0, 3.5))
    assert cues([Segment(0, 0.0, 3.5, " Yes. No.", words=words)]) == [
        Cue(0, 500, ("Yes.",)),
        Cue(3000, 3500, ("No.",)),
    ]


def test_long_silence_after_a_word_does_not_keep_it_on_the_screen():
    assert cues([Segment(0, 0.0, 30.0, " Hm.")]) == [Cue(0, 7000, ("Hm.",))]


@pytest.mark.parametrize("text", ["", " ", "\n\u2028"])
def test_nothing_said_shows_nothing(text):
    assert cues([Segment(0, 0.0, 1.0, text)]) == []


def test_times_that_run_backwards_do_not_change_the_order():
    said = [Segment(0, 5.0, 9.0, " one"), Segment(1, 2.0, 6.0, " two"), Segment(2, 2.0, 2.0, " three")]
    shown = cues(said)
    assert words_of(shown) == ["one", "two", "three"]
    assert [cue.start_ms for cue in shown] == [5000, 5001, 5002]
