"""Where sentences end, and which words are in each."""

import pytest
from speech_common.transcript import Word
from whisperx_server.sentences import sentences, spans


def divided(text):
    return [text[first:last] for first, last in spans(text)]


@pytest.mark.parametrize(
    "parts",
    [
        [" He came.", " She saw!", " Who won?", " They did"],
        [" And Mr. John and Mrs. Dashwood met Dr. Brown at St. James.", " He left."],
        [" J. K. Rowling wrote it."],
        [" So am I.", " He said no.", " It took 3.5 s."],
        [' "Come in!" he said.', ' "Thanks."', ' "Sit down."'],
        [" Well... we shall see.", " Really…", " Yes."],
        [" e.g. Norland, i.e. Sussex."],
        ["今日は。", "いい天気！", "「はい。」", "と言った"],
        [" ¿Qué pasa?", " ¡Nada!", " Él duerme."],
        [" no end at all, anywhere"],
        [],
    ],
)
def test_sentences_end_at_their_punctuation_and_nowhere_else(parts):
    assert divided("".join(parts)) == parts


def test_each_word_is_in_the_sentence_that_it_is_written_in():
    words = [
        Word(text, 0.5 * at, 0.5 * at + 0.4) for at, text in enumerate([" So", " am", " I.", " He", " left."])
    ]
    first, second = sentences(words)
    assert (first.text, first.start_s, first.end_s, first.words) == (" So am I.", 0.0, 1.4, tuple(words[:3]))
    assert (second.text, second.start_s, second.end_s, second.words) == (
        " He left.",
        1.5,
        2.4,
        tuple(words[3:]),
    )


def test_punctuation_on_its_own_ends_the_sentence_before_it():
    words = [Word(text, at, at + 1.0) for at, text in enumerate(["はい", "。", "いいえ", "。"])]
    assert [sentence.text for sentence in sentences(words)] == ["はい。", "いいえ。"]


def test_no_words_are_no_sentences():
    assert sentences([]) == []
