"""The more services start at once, the less often each is asked, and never all at once; those that hang slow no other."""

import contextlib

import pytest

from autostart.lifecycle.polling import Crowd, pause_s


@contextlib.contextmanager
def crowd_of(count):
    crowd = Crowd()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(crowd.place())
        yield crowd


@pytest.mark.parametrize(("waited_s", "apart_s"), [(0.0, 0.001), (60.0, 0.01)])
@pytest.mark.parametrize("count", [1, 2, 40, 1000])
def test_polls_that_are_due_together_come_one_after_the_other(count, waited_s, apart_s):
    with crowd_of(count) as crowd:
        turns_s = [crowd.take_turn(7.0, waited_s) for _ in range(count)]
    assert turns_s == pytest.approx([number * apart_s for number in range(count)])


def test_start_beside_many_that_hang_is_polled_as_often_as_alone():
    with crowd_of(41) as crowd:
        for _ in range(40):
            crowd.take_turn(7.0, 60.0)
        assert crowd.take_turn(7.0, 0.0) == 0.0


def test_who_is_alone_waits_for_no_turn():
    with crowd_of(1) as crowd:
        assert [crowd.take_turn(now, 0.0) for now in (7.0, 7.002, 7.004)] == [0.0, 0.0, 0.0]


def test_pause_of_one_start_grows_with_the_time_waited_up_to_a_bound():
    assert [pause_s(waited_s) for waited_s in (0.0, 1.0, 60.0)] == [0.002, 0.01, 0.05]


def test_turns_of_those_that_have_left_are_not_waited_for():
    with crowd_of(1) as crowd:
        for _ in range(1000):
            crowd.take_turn(7.0, 0.0)
        assert crowd.take_turn(7.0, 0.0) == pytest.approx(0.001)
        assert crowd.take_turn(8.0, 0.0) == 0.0


def test_turns_are_given_again_by_a_clock_that_began_anew():
    with crowd_of(2) as crowd:
        crowd.take_turn(1_000_000.0, 0.0)
        assert crowd.take_turn(7.0, 0.0) == pytest.approx(0.002)
