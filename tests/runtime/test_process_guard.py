"""The guard alone, against a process group that it must, or must not, kill."""

import os
import subprocess

import pytest
from processes import children, lives

from autostart.runtime.process_guard import Guard


@pytest.fixture
def bystander():
    """A process that leads a group of its own."""
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def abandon(guard):
    """Let the pipe end as if we had died, and wait for the guard to finish."""
    os.close(guard._writing)
    guard._writing = -1
    guard._shell.wait(20)


def test_an_abandoned_guard_ends_the_group(bystander):
    guard = Guard(1.0)
    guard.watch_over(bystander.pid)
    abandon(guard)
    assert -15 == bystander.wait(20)


def test_an_abandoned_guard_kills_who_ignores_it(eventually):
    deaf = subprocess.Popen(
        ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"],
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert deaf.stdout is not None
    deaf.stdout.readline()
    guard = Guard(0.2)
    guard.watch_over(deaf.pid)
    abandon(guard)
    assert -9 == deaf.wait(20)
    deaf.stdout.close()


def test_a_released_guard_kills_nobody_and_is_gone(bystander):
    before = children()
    guard = Guard(0.1)
    guard.watch_over(bystander.pid)
    guard.release()
    guard.release()
    assert before == children()
    assert lives(bystander.pid)


def test_a_guard_released_before_it_had_a_group_is_gone():
    before = children()
    Guard(0.1).release()
    assert before == children()


def test_a_guard_abandoned_before_it_had_a_group_kills_nobody(bystander):
    guard = Guard(0.1)
    abandon(guard)
    assert lives(bystander.pid)
