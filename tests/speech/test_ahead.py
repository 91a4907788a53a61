"""Calls in threads of their own: what they return is in order, and none is left behind."""

import threading
from functools import partial

import pytest
from whisper_server.ahead import in_order


def test_results_come_in_the_order_of_the_calls():
    assert list(in_order([partial(int, number) for number in range(7)], 3)) == list(range(7))


def test_as_many_are_under_way_as_are_wanted():
    # Each call ends only when another one is under way too.
    together = threading.Barrier(2)
    assert len(list(in_order([partial(together.wait, 10)] * 4, 2))) == 4


def test_no_more_are_under_way_than_are_wanted():
    taken = []

    def calls():
        for number in range(5):
            taken.append(number)
            yield partial(int, number)

    results = in_order(calls(), 2)
    assert next(results) == 0
    assert taken == [0, 1]


def test_what_a_call_raises_is_raised_in_its_turn():
    results = in_order([partial(int, 1), partial(int, "no number"), partial(int, 3)], 3)
    assert next(results) == 1
    with pytest.raises(ValueError, match="no number"):
        next(results)


@pytest.mark.parametrize("leave", ["close", "raise"])
def test_nothing_is_under_way_after_the_end(leave):
    may_end, has_ended = threading.Event(), threading.Event()

    def slow():
        assert may_end.wait(10)
        has_ended.set()

    first = partial(int, 1) if leave == "close" else partial(int, "no number")
    results = in_order([first, slow], 2)
    threading.Timer(0.05, may_end.set).start()
    if leave == "close":
        assert next(results) == 1
        results.close()
    else:
        with pytest.raises(ValueError, match="no number"):
            next(results)
    assert has_ended.is_set()
