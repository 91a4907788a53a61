"""Who said which word."""

from speech_common.transcript import Word
from whisperx_server.speakers import Turn
from whisperx_server.turns import Speakers


def by_overlap(turns, words):
    """Do what whisperx does: the turn that a word is in, else the nearest."""

    def away(turn, word):
        middle = (word.start + word.end) / 2
        return max(turn.start_s - middle, middle - turn.end_s, 0.0)

    return [min(turns, key=lambda turn: away(turn, word)).speaker if turns else None for word in words]


def words(*times):
    return tuple(Word(f" w{number}", float(start), float(end)) for number, (start, end) in enumerate(times))


def split(turns, known, *sentences):
    speakers = Speakers(turns, known, by_overlap)
    return [[(part[0].speaker, len(part)) for part in speakers.split(sentence)] for sentence in sentences]


def test_speakers_are_numbered_as_they_appear():
    turns = [Turn(0, 2, "7"), Turn(2, 4, "3"), Turn(4, 6, "7")]
    assert split(turns, [], words((0, 1), (2, 3)), words((4, 5))) == [
        [("SPEAKER_00", 1), ("SPEAKER_01", 1)],
        [("SPEAKER_00", 1)],
    ]


def test_who_says_no_word_has_no_number():
    turns = [Turn(0, 1, "cough"), Turn(2, 4, "a")]
    assert split(turns, [], words((2.5, 3))) == [[("SPEAKER_00", 1)]]


def test_sentence_is_split_where_the_speaker_changes_and_nowhere_else():
    turns = [Turn(0, 2, "a"), Turn(2, 3, "b"), Turn(3, 9, "a")]
    said = words((0, 1), (1, 2), (2, 3), (3, 4), (4, 5))
    assert split(turns, [], said) == [[("SPEAKER_00", 2), ("SPEAKER_01", 1), ("SPEAKER_00", 2)]]


def test_known_speaker_keeps_the_name_and_counts_for_no_number():
    turns = [Turn(0, 2, "Ann"), Turn(2, 4, "x")]
    assert split(turns, ["Ann"], words((0, 1), (2, 3))) == [[("Ann", 1), ("SPEAKER_00", 1)]]


def test_word_between_turns_goes_to_the_nearest():
    turns = [Turn(0, 1, "a"), Turn(9, 10, "b")]
    assert split(turns, [], words((2, 3), (7, 8))) == [[("SPEAKER_00", 1), ("SPEAKER_01", 1)]]


def test_only_turns_near_a_sentence_are_looked_at():
    seen = []

    def assign(turns, spoken):
        seen.append(len(turns))
        return by_overlap(turns, spoken)

    turns = [Turn(second, second + 1, str(second % 2)) for second in range(10_000)]
    speakers = Speakers(turns, [], assign)
    assert [part[0].speaker for part in speakers.split(words((5000.1, 5000.9)))] == ["SPEAKER_00"]
    assert seen[0] <= 3


def test_nobody_is_heard_where_there_are_no_turns():
    assert split([], [], words((0, 1))) == [[(None, 1)]]
    assert split([], [], ()) == [[]]
