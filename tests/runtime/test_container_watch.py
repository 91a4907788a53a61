"""From the engine's events to a runtime's."""

import asyncio
from collections.abc import Callable

from autostart.errors import EngineUnreachable
from autostart.runtime.base import Change, RuntimeEvent
from autostart.runtime.compose.events import EngineEvent, parse_event
from autostart.runtime.compose.watch import ContainerWatch


def event(action: str, container: str = "a", **facts) -> EngineEvent:
    return EngineEvent(action, container, f"name-{container}", "web", "project", "/srv/web", **facts)


def told_of(
    *happened: EngineEvent,
    needed: int = 1,
    is_starting: bool = True,
    out_of_memory: Callable[[], bool] | None = None,
):
    """What a watch makes of these events."""
    told: list[RuntimeEvent] = []

    async def ask(container_id: str) -> bool:
        await asyncio.sleep(0)
        if out_of_memory is None:
            raise EngineUnreachable("nowhere")
        return out_of_memory()

    async def main():
        watch = ContainerWatch(told.append, lambda: needed, lambda: is_starting, ask)
        for item in happened:
            watch.on_event(item)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        while others:
            await asyncio.wait(others)
            others = asyncio.all_tasks() - {asyncio.current_task()}
        watch.close()

    asyncio.run(main())
    return told


def test_a_death_after_an_ending_signal_was_by_hand():
    assert told_of(event("kill", signal=15), event("die", exit_code=0)) == [
        RuntimeEvent(Change.DIED, 0, by_hand=True)
    ]


def test_a_death_after_a_reload_signal_was_not_by_hand():
    assert told_of(event("kill", signal=1), event("die", exit_code=1)) == [RuntimeEvent(Change.DIED, 1)]


def test_a_signal_to_one_container_says_nothing_of_another():
    assert told_of(event("kill", "b", signal=15), event("die", "a", exit_code=1)) == [
        RuntimeEvent(Change.DIED, 1)
    ]


def test_a_new_start_forgets_what_ended_the_last_run():
    happened = [event("kill", signal=15), event("start"), event("die", exit_code=1)]
    assert told_of(*happened) == [RuntimeEvent(Change.STARTED), RuntimeEvent(Change.DIED, 1)]


def test_what_is_thawed_to_be_ended_was_ended_by_hand():
    happened = [event("pause"), event("kill", signal=15), event("unpause"), event("die", exit_code=0)]
    assert told_of(*happened)[1:] == [
        RuntimeEvent(Change.STARTED),
        RuntimeEvent(Change.DIED, 0, by_hand=True),
    ]


def test_an_oom_event_before_the_death_explains_it():
    assert told_of(event("oom"), event("die", exit_code=137)) == [
        RuntimeEvent(Change.DIED, 137, out_of_memory=True)
    ]


def test_an_unexplained_137_is_looked_up_and_later_events_wait_their_turn():
    happened = [event("die", exit_code=137), event("start"), event("die", exit_code=137), event("start")]
    answers = iter([True, False])
    assert told_of(*happened, out_of_memory=lambda: next(answers)) == [
        RuntimeEvent(Change.DIED, 137, out_of_memory=True),
        RuntimeEvent(Change.STARTED),
        RuntimeEvent(Change.DIED, 137),
        RuntimeEvent(Change.STARTED),
    ]


def test_a_137_that_cannot_be_looked_up_is_told_all_the_same():
    assert told_of(event("die", exit_code=137)) == [RuntimeEvent(Change.DIED, 137)]


def test_started_is_told_when_the_last_of_those_needed_runs():
    assert told_of(event("start", "a"), needed=2) == []
    assert told_of(event("start", "a"), event("start", "b"), needed=2) == [RuntimeEvent(Change.STARTED)]
    assert told_of(event("start", "a"), event("die", "a", exit_code=1), event("start", "b"), needed=2) == [
        RuntimeEvent(Change.DIED, 1)
    ]


def test_a_start_by_hand_of_too_few_is_a_reason_to_look_again():
    assert told_of(event("start", "a"), event("start", "b"), needed=2, is_starting=False) == [
        RuntimeEvent(Change.RESYNC),
        RuntimeEvent(Change.STARTED),
    ]


def test_the_health_of_a_paused_container_is_not_told():
    happened = [event("start"), event("pause"), event("health_status", health="unhealthy"), event("unpause")]
    assert [item.change for item in told_of(*happened)] == [Change.STARTED, Change.PAUSED, Change.STARTED]


def test_health_is_told_as_the_engine_says_it():
    happened = [event("health_status", health=status) for status in ("starting", "healthy", "unhealthy")]
    assert [item.change for item in told_of(*happened)] == [Change.HEALTHY, Change.UNHEALTHY]


def test_health_is_good_again_once_no_container_is_unhealthy():
    happened = [
        event("health_status", "a", health="unhealthy"),
        event("health_status", "b", health="healthy"),
    ]
    assert [item.change for item in told_of(*happened)] == [Change.UNHEALTHY]
    happened += [event("health_status", "a", health="healthy")]
    assert [item.change for item in told_of(*happened)] == [Change.UNHEALTHY, Change.HEALTHY]


def test_health_is_good_again_although_an_unhealthy_container_went_untold():
    told: list[RuntimeEvent] = []

    async def ask(_container_id: str) -> bool:
        return False

    watch = ContainerWatch(told.append, lambda: 1, lambda: False, ask)
    watch.on_event(event("health_status", "old", health="unhealthy"))
    watch.set_running({"new"}, set())
    watch.on_event(event("health_status", "new", health="healthy"))
    assert [item.change for item in told] == [Change.UNHEALTHY, Change.HEALTHY]


def test_one_off_containers_and_other_actions_are_no_events():
    attributes = {"name": "x", "exitCode": "3", "signal": "9"}
    raw = {"Action": "die", "Actor": {"ID": "1", "Attributes": attributes}}
    parsed = parse_event(raw)
    assert parsed is not None
    assert (parsed.exit_code, parsed.signal, parsed.container) == (3, 9, "x")
    assert parse_event({**raw, "Action": "exec_start: sh"}) is None
    one_off = attributes | {"com.docker.compose.oneoff": "True"}
    assert parse_event({"Action": "die", "Actor": {"ID": "1", "Attributes": one_off}}) is None
