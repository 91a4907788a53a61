"""Work in threads of their own: what comes of it is in order, and none is left behind."""

import threading
from functools import partial

import pytest
from speech_common.ahead import in_order, read_ahead


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


def test_items_are_made_ahead_and_no_more_than_wanted():
    made = []
    is_enough = threading.Semaphore(0)

    def source():
        for number in range(9):
            made.append(number)
            yield number
            is_enough.release()  # when the next one is wanted

    items = read_ahead(source(), 3)
    assert next(items) == 0
    for _ in range(3):
        assert is_enough.acquire(timeout=10)
    assert made == [0, 1, 2, 3]
    assert not is_enough.acquire(timeout=0.05)
    assert list(items) == list(range(1, 9))


def test_items_are_made_in_one_other_thread():
    threads = set(read_ahead((threading.current_thread() for _ in range(9)), 3))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_what_making_an_item_raises_is_raised_in_its_turn():
    items = read_ahead((1 // (2 - number) for number in range(5)), 4)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def test_nothing_is_made_after_the_end():
    may_end, asked = threading.Event(), threading.Event()
    made = []

    def source():
        for number in range(9):
            made.append(number)
            if number == 1:
                asked.set()
                assert may_end.wait(10)
            yield number

    items = read_ahead(source(), 4)
    assert next(items) == 0
    assert asked.wait(10)
    threading.Timer(0.05, may_end.set).start()
    items.close()
    assert may_end.is_set()
    assert made == [0, 1]
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())
