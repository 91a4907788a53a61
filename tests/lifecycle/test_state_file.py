"""The state file: idle clocks survive, and nothing about the file can stop a service."""

import asyncio
import json
import time

from autostart.lifecycle.events import Held, Phases, StartSucceeded, Used
from autostart.lifecycle.state_file import StateFile


def keep(path, *events):
    async def body():
        state = StateFile(path)
        for event in events:
            state.on_event(event)
        await state.close()

    asyncio.run(body())


def test_idle_clocks_are_read_back(tmp_path):
    path = tmp_path / "deep" / "state.json"
    keep(path, Used("a.test", 123.5), Used("b.test", 7.0), Used("a.test", 124.5))
    state = StateFile(path)
    assert (state.last_used_s("a.test"), state.last_used_s("b.test"), state.last_used_s("c.test")) == (
        124.5,
        7.0,
        None,
    )


def test_new_start_forgets_the_use_before_it(tmp_path):
    path = tmp_path / "state.json"
    keep(path, Used("a.test", 1.0), StartSucceeded("a.test", "curl", False, Phases(0, 0), 0))
    assert StateFile(path).last_used_s("a.test") is None


def test_half_a_file_costs_only_the_clocks(tmp_path, caplog):
    path = tmp_path / "state.json"
    for text in (
        '{"version": 1, "lastUsed": {"a',
        "[]",
        '{"lastUsed": 3}',
        "",
        "\x00",
        "[" * 100_000,
        '{"lastUsed": {"a.test": NaN}}',
        '{"lastUsed": {"a.test": Infinity}}',
        '{"lastUsed": {"a.test": 1' + "0" * 400 + "}}",
        '{"lastUsed": {"a.test": -1}}',
        '{"lastUsed": {"a.test": true}}',
        '{"lastUsed": {"a.test": 1}, "heldUntil": {"a.test": NaN}}',
    ):
        path.write_text(text)
        assert StateFile(path).last_used_s("a.test") is None
        assert "idle clocks start anew" in caplog.text
        caplog.clear()


def test_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "state.json"
    keep(path, Used("a.test", 1.0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]
    kept = {"version": 1, "lastUsed": {"a.test": 1.0}, "heldUntil": {}}
    assert json.loads(path.read_text()) == kept


def test_holds_are_read_back_until_they_end_or_are_released(tmp_path):
    path, end_s = tmp_path / "state.json", time.time() + 3600
    keep(path, Held("a.test", end_s), Held("b.test", end_s), Held("b.test", None), Held("c.test", 1.0))
    state = StateFile(path)
    assert [state.held_until_s(host) for host in ("a.test", "b.test", "c.test")] == [end_s, None, None]


def test_file_from_before_holds_were_kept_is_read(tmp_path):
    path = tmp_path / "state.json"
    path.write_text('{"version": 1, "lastUsed": {"a.test": 7}}')
    assert StateFile(path).last_used_s("a.test") == 7


def test_use_in_the_future_counts_as_now(tmp_path):
    path = tmp_path / "state.json"
    keep(path, Used("a.test", time.time() + 1e6))
    assert StateFile(path).last_used_s("a.test") <= time.time()


def test_without_a_file_the_clocks_are_kept_in_memory():
    async def body():
        state = StateFile(None)
        state.on_event(Used("a.test", 1.0))
        state.on_event(Held("a.test", 2.0))
        await state.close()
        assert (state.last_used_s("a.test"), state.held_until_s("a.test")) == (1.0, 2.0)

    asyncio.run(body())


def test_file_that_cannot_be_written_is_told_once(tmp_path, caplog):
    blocked = tmp_path / "not-a-directory"
    blocked.write_text("")

    async def body():
        state = StateFile(blocked / "state.json")
        caplog.clear()
        for used_s in (1.0, 2.0):
            state.on_event(Used("a.test", used_s))
            await state.close()

    asyncio.run(body())
    assert caplog.text.count("cannot be written") == 1
