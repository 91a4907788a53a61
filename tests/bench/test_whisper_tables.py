"""The tables of the speech server, in a tiny size. What they find is nobody's concern here."""

from bench import accuracy, clients, hours, listen, pace
from bench.table import Row


def figures(rows: list[Row]) -> dict[str, Row]:
    found = {row.figure: row for row in rows}
    assert len(found) == len(rows)
    assert all(row.measured is not None and row.measured >= 0 for row in rows), rows
    return found


def test_start_is_told_in_two_steps():
    rows = figures(listen.measure(1, ["tiny"]))
    assert rows["tiny: listening"].limit == 0.6
    assert rows["tiny: ready"].limit == 1.2
    assert 0 < rows["tiny: listening"].measured < rows["tiny: ready"].measured


def test_pace_compares_with_the_bare_library():
    rows = figures(pace.measure(1, 2, 31, ["austen-0880"], ["tiny"]))
    assert rows["tiny, sequential: time of the bare library's"].limit == 1 / 0.97
    assert rows["tiny, batched: time of the bare library's"].limit == 1 / 1.5
    assert rows["tiny, batched: word error rate"].measured < 50


def test_accuracy_compares_a_recording_with_copies_of_itself():
    rows = figures(accuracy.measure(3, ["austen-0880"], ["base"]))
    assert rows["base: all recordings"].limit == 5.0
    assert rows["base: 3 times austen-0880, against itself"].limit == 0.0
    assert "base: 3 times the reader's sentences, against itself" in rows


def test_clients_are_answered_or_refused_and_memory_is_watched():
    rows = figures(clients.measure(3, 10))
    assert rows["answered"].measured == 3
    assert rows["memory: growth a request"].limit == 10.0


def test_hours_tell_memory_over_the_loaded_model():
    rows = figures(hours.measure(0.009, ["austen-0880"]))
    assert rows["memory over the loaded model"].limit == 400.0
    assert rows["word error rate"].measured < 50
