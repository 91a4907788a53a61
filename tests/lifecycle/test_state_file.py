"""The state file: idle clocks survive, and nothing about the file can stop a service."""

import asyncio
import json

from autostart.lifecycle.events import Phases, StartSucceeded, Used
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
    for text in ('{"version": 1, "lastUsed": {"a', "[]", '{"lastUsed": 3}', "", "\x00"):
        path.write_text(text)
        assert StateFile(path).last_used_s("a.test") is None
        assert "idle clocks start anew" in caplog.text
        caplog.clear()


def test_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "state.json"
    keep(path, Used("a.test", 1.0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]
    assert json.loads(path.read_text()) == {"version": 1, "lastUsed": {"a.test": 1.0}}


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
