"""A stream of events that has fallen silent is told from one that has nothing to tell."""

import asyncio
from types import SimpleNamespace

import virtual_time

from autostart.errors import TimedOut
from autostart.runtime.compose.engine import Engine
from autostart.runtime.compose.silence import Comparison, Listed, parse_list


def up(*containers: str, state: str = "running", address: str = "172.18.0.2") -> dict[str, Listed]:
    return {name: Listed((f"name:{name}",), state, (address,)) for name in containers}


def untold(*steps: dict[str, Listed] | str) -> set[str]:
    """What the last list finds; a word is a container of which an event came."""
    comparison, found = Comparison(), set()
    for step in steps:
        if isinstance(step, str):
            comparison.tell(step)
        else:
            found, _ = comparison.compare(step)
    return found


def test_the_first_list_finds_nothing():
    assert untold(up("a")) == set()


def test_a_begin_an_end_and_a_freeze_without_an_event_are_found():
    assert untold(up("a", "b", "c"), up("a", "d") | up("b", state="paused")) == {"b", "c", "d"}


def test_what_was_told_is_not_found():
    assert untold(up("a"), "a", "b", up("b")) == set()


def test_an_event_of_one_says_nothing_of_another():
    assert untold(up("a", "b"), "a", up()) == {"b"}


def test_an_event_says_nothing_of_the_change_after_the_next_list():
    assert untold(up(), "a", up("a"), up()) == {"a"}


def test_a_death_that_the_list_is_late_to_show_is_not_found():
    assert untold(up("a"), "a", up("a"), up()) == set()


def test_a_begin_that_the_list_is_late_to_show_is_not_found():
    assert untold(up(), "a", up(), up("a")) == set()


def test_after_a_new_stream_everything_begins_anew():
    comparison = Comparison()
    comparison.compare(up("a"))
    comparison.reset()
    assert comparison.compare(up()) == (set(), [])


def test_another_address_is_no_silence():
    comparison, moved = Comparison(), up("a", address="172.19.0.2")
    comparison.compare(up("a", "b"))
    assert comparison.compare(moved | up("b")) == (set(), [moved["a"]])


def test_what_is_listed_for_the_first_time_may_have_moved_since_it_was_looked_at():
    comparison, new = Comparison(), up("b")
    assert comparison.compare(up("a")) == (set(), [])
    comparison.tell("b")
    assert comparison.compare(up("a") | new) == (set(), [new["b"]])
    assert comparison.compare(up("a") | new) == (set(), [])


def test_the_list_is_read_by_what_a_project_follows_without_one_offs():
    labels = {"com.docker.compose.project": "web", "com.docker.compose.project.working_dir": "/opt/web"}
    networks = {"web_default": {"IPAddress": "172.18.0.2"}, "none": {"IPAddress": ""}}
    one = {"Id": "1", "Names": ["/web-1"], "Labels": labels, "State": "running"}
    raw = [
        one | {"NetworkSettings": {"Networks": networks}},
        one | {"Id": "2", "Labels": labels | {"com.docker.compose.oneoff": "True"}},
        {"Id": "3", "Names": ["/plain"], "Labels": None, "State": "paused", "NetworkSettings": None},
    ]
    listed = parse_list(raw)
    assert set(listed) == {"1", "3"}
    assert listed["1"] == Listed(
        ("id:1", "name:web-1", "project:web", "directory:/opt/web"), "running", ("172.18.0.2",)
    )
    assert (listed["3"].state, listed["3"].addresses) == ("paused", ())


def listing(function, hours: float) -> tuple[int, int]:
    """How often what runs was listed in so many hours, and the stream opened again, where `function` lists it."""
    listed = reopened = 0

    class OddEngine(Engine):
        async def call(self, _operation, _function, *, limit_s):
            nonlocal listed
            listed += 1
            return await function(limit_s)

    def reopen(_why: str) -> None:
        nonlocal reopened
        reopened += 1

    async def main() -> None:
        engine = OddEngine("unix:///nowhere")
        task = asyncio.create_task(engine._list_now_and_then(SimpleNamespace(reopen=reopen)))
        await asyncio.sleep(hours * 3600)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    virtual_time.run(main(), dial=None)
    return listed, reopened


def test_what_runs_is_listed_every_half_minute():
    async def quick(_limit_s):
        return {}

    assert listing(quick, hours=1.001) == (120, 0)


def test_engine_that_cannot_list_has_all_compared_ever_less_often_and_is_asked_on():
    async def hang(limit_s):
        await asyncio.sleep(limit_s)
        raise TimedOut("listing what runs", limit_s)

    _, reopened = listing(hang, hours=10)
    assert 30 < reopened < 80


def test_mistake_in_listing_does_not_end_it():
    async def fail(_limit_s):
        raise RuntimeError("can't start new thread")

    listed, _ = listing(fail, hours=1)
    assert listed > 3
