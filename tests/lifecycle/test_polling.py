"""The more services start at once, the less often each is asked; those that hang slow no other down."""

import contextlib

import pytest

from autostart.lifecycle.polling import Crowd


def polls_a_second(crowd, count, waited_s):
    """What `count` starts that have waited so long cost together, and how long each pauses."""
    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(crowd.place()) for _ in range(count)]
        for place in places:
            place.pause_s(waited_s)
        pauses_s = {place.pause_s(waited_s) for place in places}
    assert len(pauses_s) == 1
    return count / pauses_s.pop()


@pytest.mark.parametrize("count", [1, 2, 40, 1000])
def test_many_young_starts_poll_together_hardly_more_than_one(count):
    assert polls_a_second(Crowd(), count, 0.0) <= 1000.1


@pytest.mark.parametrize("count", [1, 10, 40, 1000])
def test_starts_that_take_long_poll_still_less(count):
    assert polls_a_second(Crowd(), count, 60.0) <= 200.1


def test_start_beside_many_that_hang_is_polled_as_often_as_alone():
    crowd = Crowd()
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(crowd.place()).pause_s(60.0)
        assert stack.enter_context(crowd.place()).pause_s(0.0) == 0.002


def test_pause_of_one_start_grows_with_the_time_waited_up_to_a_bound():
    with Crowd().place() as place:
        assert [place.pause_s(waited_s) for waited_s in (0.0, 1.0, 60.0)] == [0.002, 0.01, 0.05]


def test_those_that_have_ended_count_no_more():
    crowd = Crowd()
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(crowd.place())
    with crowd.place() as place:
        assert place.pause_s(0.0) == 0.002
