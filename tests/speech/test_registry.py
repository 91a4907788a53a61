"""Which models are in memory: who gets one, who waits, what makes room, and what becomes of its memory."""

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

import pytest
from checkpoints import hub_cache, linked, replaced, weights_file
from speech_common.errors import ModelLoading, ModelUnavailable, UnknownModel
from speech_common.job import Abandoned
from speech_common.models.downloads import Downloads
from speech_common.models.faults import ModelError, PassingFault
from speech_common.models.registry import ModelState, Registry
from waiting import LIMIT_S, block_until
from whisper_server.settings import Settings


class Memory:
    """Loads nothing, and remembers what a registry does. A load of a name in `gates` waits for its event."""

    def __init__(self):
        self.held = []
        self.most = 0
        self.history = []
        self.in_use = Counter()
        self.faults = []
        self.gates = {}
        self.failing = {}
        self.lock = threading.Lock()

    def load(self, checkpoint):
        name = checkpoint.name
        with self.lock:
            self.history.append(f"+{name}")
            self.held.append(name)
            self.most = max(self.most, len(self.held))
        if name in self.gates:
            assert self.gates[name].wait(LIMIT_S)
        if name in self.failing:
            with self.lock:
                self.held.remove(name)
            raise self.failing[name]
        return name

    def unload(self, name):
        with self.lock:
            self.history.append(f"-{name}")
            self.held.remove(name)
            if self.in_use[name]:
                self.faults.append(f"{name} unloaded in use")

    def use(self, registry, name, until=None):
        """Lease a model, and look whether it stays in memory meanwhile."""
        with registry.lease(name) as model:
            with self.lock:
                self.in_use[name] += 1
                if model != name or name not in self.held:
                    self.faults.append(f"{name} leased, but {self.held} is in memory")
            if until is not None:
                assert until.wait(LIMIT_S)
            for _ in range(5):
                time.sleep(0)  # the others' turn
            with self.lock:
                self.in_use[name] -= 1


class Hub:
    """Has what is in `models`, by repository, and hands it out while its gate is open."""

    def __init__(self, home):
        self.home = home
        self.models = {}
        self.asked = []
        self.gate = threading.Event()

    def fetch(self, repository):
        self.asked.append(repository)
        assert self.gate.wait(LIMIT_S)
        if repository not in self.models:
            raise ModelError(f"the hub has no model {repository}")
        return hub_cache(self.home, self.models[repository], repository.rpartition("-")[2])


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def hub(tmp_path):
    hub = Hub(tmp_path)
    yield hub
    hub.gate.set()


@pytest.fixture
def make(tmp_path, tiny_model, memory, hub, monkeypatch):
    """Make a registry whose default is `a`, with `b`, `c` and `d` beside it, which loads and downloads nothing."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    directory = tmp_path / "models"
    for name in "abcd":
        linked(tiny_model, directory / name)

    def registry(loaded=1, **variables):
        made = Registry(
            Settings.from_environment(
                {
                    "WHISPER_MODEL": "a",
                    "WHISPER_MODELS_DIR": str(directory),
                    "WHISPER_MODELS_LOADED": str(loaded),
                    **variables,
                }
            ),
            memory.load,
            memory.unload,
            hub.fetch,
        )
        made.start_loading()
        block_until(lambda: made.state is not ModelState.LOADING or "a" in memory.gates or hub.asked)
        return made

    registry.directory = directory
    return registry


class Threads:
    """Threads that do not outlive the tests, not even where a broken registry leaves them waiting."""

    def submit(self, work, *args):
        ended = Future()

        def run():
            try:
                ended.set_result(work(*args))
            except BaseException as exc:  # noqa: BLE001 -- the future's owner is told
                ended.set_exception(exc)

        threading.Thread(target=run, daemon=True).start()
        return ended


@pytest.fixture
def threads():
    return Threads()


def waiting(registry):
    return len(registry._slots._queue)


def is_loaded(registry):
    return {info.name for info in registry.names() if info.is_loaded}


def test_default_is_loaded_at_the_start_and_the_others_when_they_are_asked_for(make, memory):
    registry = make()
    memory.use(registry, "a")
    assert registry.state is ModelState.READY
    memory.use(registry, "b")
    assert memory.history == ["+a", "-a", "+b"]
    assert is_loaded(registry) == {"b"}
    assert registry.state is ModelState.READY


def test_models_are_listed_with_default_aliases_and_what_is_loaded(make, memory):
    registry = make(WHISPER_ALIASES="fast=b")
    memory.use(registry, "a")
    told = [(info.name, info.is_default, info.aliases, info.is_loaded) for info in registry.names()]
    assert told == [
        ("a", True, ("whisper-1",), True),
        ("b", False, ("fast",), False),
        ("c", False, (), False),
        ("d", False, (), False),
    ]
    assert all(info.created > 1_000_000_000 for info in registry.names())


def test_the_one_idle_longest_makes_room(make, memory):
    registry = make(2)
    for name in "abacb":
        memory.use(registry, name)
    assert memory.history == ["+a", "+b", "-b", "+c", "-a", "+b"]


def test_model_in_use_is_not_unloaded_and_who_wants_another_waits(make, memory, threads):
    registry, end = make(), threading.Event()
    first = threads.submit(memory.use, registry, "a", end)
    block_until(lambda: memory.in_use["a"])
    second = threads.submit(memory.use, registry, "b")
    block_until(lambda: waiting(registry))
    assert memory.history == ["+a"]
    end.set()
    for use in (first, second):
        use.result(LIMIT_S)
    assert memory.history == ["+a", "-a", "+b"]
    assert memory.faults == []


def test_model_that_is_asked_for_all_the_time_starves_no_other(make, memory, threads):
    registry, ends, names = make(), [threading.Event() for _ in range(3)], "aba"
    uses = [threads.submit(memory.use, registry, "a", ends[0])]
    block_until(lambda: memory.in_use["a"])
    for place, name in enumerate(names[1:], 1):
        uses.append(threads.submit(memory.use, registry, name, ends[place]))
        block_until(lambda place=place: waiting(registry) == place)
    assert memory.in_use == {"a": 1}  # the second user of a, although it is loaded, waits behind that of b
    ends[0].set()
    block_until(lambda: memory.in_use["b"])
    ends[1].set()
    ends[2].set()
    for use in uses:
        use.result(LIMIT_S)
    assert memory.history == ["+a", "-a", "+b", "-b", "+a"]


def test_three_models_asked_for_at_once_take_turns_in_one_place(make, memory, threads):
    registry, start = make(), threading.Barrier(3)

    def use(name):
        start.wait(LIMIT_S)
        memory.use(registry, name)

    for use_ in [threads.submit(use, name) for name in "bcd"]:
        use_.result(LIMIT_S)
    assert sorted(memory.history[::2]) == ["+a", "+b", "+c", "+d"]
    assert memory.most == 1
    assert memory.faults == []


@pytest.mark.parametrize("loaded", [1, 2, 3])
def test_in_a_crowd_never_more_are_loaded_and_none_is_unloaded_in_use(make, memory, threads, loaded):
    registry, start = make(loaded), threading.Barrier(16)

    def crowd(seed):
        wishes = random.Random(seed)
        start.wait(LIMIT_S)
        for _ in range(40):
            memory.use(registry, wishes.choice("abcd"))

    for each in [threads.submit(crowd, seed) for seed in range(16)]:
        each.result(LIMIT_S)
    assert memory.most <= loaded
    assert len(memory.held) == loaded
    assert memory.faults == []
    assert waiting(registry) == 0


def test_who_asks_for_a_model_that_is_being_loaded_gets_that_one(make, memory, threads):
    registry = make(2)
    memory.use(registry, "a")
    memory.gates["b"] = threading.Event()
    uses = [threads.submit(memory.use, registry, "b") for _ in range(8)]
    b = registry._catalogue.find("b")
    block_until(lambda: (slot := registry._slots._slots.get(b)) is not None and slot.users == 8)
    memory.gates["b"].set()
    for use in uses:
        use.result(LIMIT_S)
    assert memory.history == ["+a", "+b"]


def test_load_in_progress_keeps_no_one_from_a_model_in_memory(make, memory, threads):
    registry = make(2)
    memory.use(registry, "a")
    memory.gates["b"] = threading.Event()
    load = threads.submit(memory.use, registry, "b")
    block_until(lambda: "+b" in memory.history)
    threads.submit(memory.use, registry, "a").result(LIMIT_S)
    memory.gates["b"].set()
    load.result(LIMIT_S)


@pytest.mark.parametrize("failure", [ModelError("model.bin is bad"), RuntimeError("who knows")])
def test_load_that_fails_leaves_its_place_free_and_all_who_wait_are_told(make, memory, threads, failure):
    registry = make()
    memory.use(registry, "a")
    memory.failing["b"] = failure
    memory.gates["b"] = threading.Event()
    uses = [threads.submit(memory.use, registry, "b") for _ in range(3)]
    block_until(lambda: "+b" in memory.history and waiting(registry) == 0)
    memory.gates["b"].set()
    for use in uses:
        with pytest.raises(ModelUnavailable, match="b: "):
            use.result(LIMIT_S)
    memory.use(registry, "c")
    assert memory.held == ["c"]


def test_model_that_does_not_load_leaves_the_list_until_its_files_change(make, memory, tiny_model):
    registry = make()
    memory.failing["b"] = ModelError("model.bin is bad")
    with pytest.raises(ModelUnavailable, match=r"b: model\.bin is bad"):
        memory.use(registry, "b")
    assert [info.name for info in registry.names()] == ["a", "c", "d"]
    with pytest.raises(ModelUnavailable, match=r"b: model\.bin is bad"):
        registry.resolve("b")
    del memory.failing["b"]
    replaced(make.directory / "b", "model.bin", (tiny_model / "model.bin").read_bytes())
    memory.use(registry, registry.resolve("b"))


@pytest.mark.parametrize(
    "failure", [PassingFault("CUDA failed with error out of memory"), RuntimeError("who knows")]
)
def test_what_is_not_the_files_fault_leaves_the_model_in_the_list(make, memory, failure):
    registry = make()
    memory.failing["b"] = failure
    with pytest.raises(ModelUnavailable):
        memory.use(registry, "b")
    assert registry.resolve("b") == "b"
    del memory.failing["b"]
    memory.use(registry, "b")


class Gone(Exception):
    pass


def give_up(registry, name, gone):
    """Ask for a model until `gone` is set."""

    def check():
        if gone.is_set():
            raise Gone

    with registry.lease(name, check):
        pytest.fail("got it")


def test_who_gives_up_leaves_the_queue_to_the_others(make, memory, threads):
    registry, end, gone = make(), threading.Event(), threading.Event()

    first = threads.submit(memory.use, registry, "a", end)
    block_until(lambda: memory.in_use["a"])
    given_up = threads.submit(give_up, registry, "b", gone)
    block_until(lambda: waiting(registry) == 1)
    third = threads.submit(memory.use, registry, "a")
    block_until(lambda: waiting(registry) == 2)
    gone.set()
    with pytest.raises(Gone):
        given_up.result(LIMIT_S)
    third.result(LIMIT_S)  # while the first still uses it
    end.set()
    first.result(LIMIT_S)
    assert memory.history == ["+a"]


def test_who_gives_up_while_another_thread_loads_gives_his_place_back(make, memory, threads):
    registry, gone = make(), threading.Event()
    memory.use(registry, "a")
    memory.gates["b"] = threading.Event()

    load = threads.submit(memory.use, registry, "b")
    block_until(lambda: "+b" in memory.history)
    given_up = threads.submit(give_up, registry, "b", gone)
    block_until(lambda: registry._slots._slots[registry._catalogue.find("b")].users == 2)
    gone.set()
    with pytest.raises(Gone):
        given_up.result(LIMIT_S)
    memory.gates["b"].set()
    load.result(LIMIT_S)
    threads.submit(memory.use, registry, "c").result(LIMIT_S)
    assert memory.held == ["c"]


def test_work_that_fails_gives_its_model_back(make, memory, threads):
    registry = make()
    with pytest.raises(ZeroDivisionError), registry.lease("a"):
        raise ZeroDivisionError
    with pytest.raises(ModelError, match="the work's own"), registry.lease("a"):
        raise ModelError("the work's own")
    threads.submit(memory.use, registry, "b").result(LIMIT_S)
    assert memory.held == ["b"]


def test_replaced_model_is_loaded_anew_in_the_place_of_the_old_one(make, memory, tiny_model):
    registry = make(2)
    memory.use(registry, "b")
    replaced(make.directory / "b", "model.bin", (tiny_model / "model.bin").read_bytes())
    memory.use(registry, "b")
    assert memory.history == ["+a", "+b", "-b", "+b"]


def test_replaced_model_goes_as_soon_as_nobody_uses_it(make, memory, threads, tiny_model):
    registry, end = make(4), threading.Event()
    memory.use(registry, "b")
    job = threads.submit(memory.use, registry, "b", end)
    block_until(lambda: memory.in_use["b"])
    replaced(make.directory / "b", "model.bin", (tiny_model / "model.bin").read_bytes())
    memory.use(registry, "b")
    assert memory.history == ["+a", "+b", "+b"]
    memory.in_use["b"] = 0  # what is told apart by name only
    end.set()
    job.result(LIMIT_S)
    assert memory.history == ["+a", "+b", "+b", "-b"]
    assert registry.loaded_count == 2


def test_replaced_model_that_nobody_uses_goes_with_the_first_use_of_the_new_one(make, memory, tiny_model):
    registry = make(4)
    memory.use(registry, "b")
    replaced(make.directory / "b", "model.bin", (tiny_model / "model.bin").read_bytes())
    memory.use(registry, "b")
    assert memory.history == ["+a", "+b", "+b", "-b"]
    assert registry.loaded_count == 2


def test_directory_that_goes_while_loaded_serves_those_who_were_promised_it(make, memory):
    registry = make()
    memory.use(registry, "b")
    promised = registry.resolve("b")
    (make.directory / "b").rename(make.directory.parent / "elsewhere")
    assert "b" not in [info.name for info in registry.names()]
    with pytest.raises(UnknownModel):
        registry.resolve("b")
    memory.use(registry, promised)
    memory.use(registry, "a")
    with pytest.raises(UnknownModel):
        memory.use(registry, promised)


def test_default_that_goes_after_it_made_room_is_told_of_and_ends_nothing(make, memory):
    registry = make()
    memory.use(registry, "b")
    (make.directory / "a").rename(make.directory.parent / "elsewhere")
    with pytest.raises(ModelUnavailable, match=r"a: model\.bin, config\.json"):
        memory.use(registry, "a")
    assert registry.state is ModelState.READY
    memory.use(registry, "b")


def test_default_that_does_not_load_is_told_to_all_who_wait(make, memory, threads):
    memory.gates["a"] = threading.Event()
    memory.failing["a"] = ModelError("model.bin is bad")
    registry = make()
    use = threads.submit(memory.use, registry, "a")
    block_until(lambda: "+a" in memory.history)
    assert registry.state is ModelState.LOADING
    assert registry.failure is None
    memory.gates["a"].set()
    asyncio.run(asyncio.wait_for(registry.wait_until_failed(), LIMIT_S))
    assert (registry.state, registry.failure) == (ModelState.FAILED, "model.bin is bad")
    with pytest.raises(ModelUnavailable, match=r"model\.bin is bad"):
        use.result(LIMIT_S)


def test_default_that_loads_for_long_is_waited_for_only_so_long(make, memory):
    memory.gates["a"] = threading.Event()
    registry = make(WHISPER_LOAD_WAIT="1ms")
    with pytest.raises(ModelLoading):
        memory.use(registry, "a")
    memory.gates["a"].set()


def test_default_is_ready_though_others_took_its_place_while_it_was_downloaded(
    make, memory, hub, threads, tiny_model
):
    hub.models["Systran/faster-whisper-small"] = tiny_model
    registry, end = make(WHISPER_MODEL="small"), threading.Event()
    assert registry.state is ModelState.LOADING
    assert registry.facts("small") is None
    job = threads.submit(memory.use, registry, "b", end)
    block_until(lambda: memory.in_use["b"])
    hub.gate.set()
    block_until(lambda: registry.state is ModelState.READY)
    assert memory.history == ["+b"]
    end.set()
    job.result(LIMIT_S)
    memory.use(registry, "small")
    assert memory.history == ["+b", "-b", "+small"]


def test_device_that_works_no_more_fails_for_good(make, memory):
    registry = make()
    memory.use(registry, "a")
    registry.fail(ModelError("the cuda device works no more"))
    registry.fail(ModelError("another cause"))
    asyncio.run(asyncio.wait_for(registry.wait_until_failed(), LIMIT_S))
    assert (registry.state, registry.failure) == (ModelState.FAILED, "the cuda device works no more")


def test_model_that_is_asked_for_is_downloaded_once_for_all_who_wait(make, memory, hub, threads, tiny_model):
    registry = make()
    hub.models["Systran/faster-whisper-small"] = tiny_model
    name = registry.resolve("small")
    assert registry.facts(name) is None
    uses = [threads.submit(memory.use, registry, name) for _ in range(3)]
    block_until(lambda: hub.asked)
    hub.gate.set()
    for use in uses:
        use.result(LIMIT_S)
    assert hub.asked == ["Systran/faster-whisper-small"]
    assert memory.history == ["+a", "-a", "+small"]
    assert registry.facts(name).languages == ("en",)


def test_who_asks_as_a_download_ends_gets_what_it_brought(tmp_path):
    asked = []
    found = Downloads(lambda repository: tmp_path, asked.append).fetched("Systran/faster-whisper-small")
    assert found.result(LIMIT_S) == tmp_path
    assert asked == []


def test_download_that_fails_is_told_and_begun_anew_by_the_next_request(make, memory, hub, tiny_model):
    registry = make()
    hub.gate.set()
    with pytest.raises(ModelUnavailable, match="small: the hub has no model Systran/faster-whisper-small"):
        memory.use(registry, "small")
    hub.models["Systran/faster-whisper-small"] = tiny_model
    memory.use(registry, "small")
    assert len(hub.asked) == 2


def test_download_is_waited_for_only_so_long_and_goes_on(make, memory, hub, tiny_model):
    registry = make(WHISPER_LOAD_WAIT="1ms")
    hub.models["Systran/faster-whisper-small"] = tiny_model
    with pytest.raises(ModelLoading):
        memory.use(registry, "small")
    hub.gate.set()
    block_until(lambda: registry.facts("small"))
    memory.use(registry, "small")


def test_who_leaves_waits_for_no_download(make, hub):
    registry = make()

    def gone():
        raise Abandoned

    with pytest.raises(Abandoned), registry.lease("small", gone):
        pytest.fail("got it")


def test_loads_are_reported_with_their_end(make, memory):
    registry, told = make(), []
    registry.on_load.append(lambda name, took_s, ok: told.append((name, took_s >= 0, ok)))
    memory.failing["c"] = ModelError("model.bin is bad")
    memory.use(registry, "a")
    memory.use(registry, "b")
    with pytest.raises(ModelUnavailable):
        memory.use(registry, "c")
    assert told[-2:] == [("b", True, True), ("c", True, False)]


def test_facts_of_a_model_that_is_not_loaded(make, memory):
    registry = make()
    memory.use(registry, "a")
    assert registry.facts("b").languages == ("en",)
    replaced(make.directory / "b", "model.bin", weights_file())
    assert len(registry.facts("b").languages) == 99
    replaced(make.directory / "b", "model.bin", b"")
    with pytest.raises(ModelUnavailable):
        registry.facts("b")
    assert memory.history == ["+a"]


def test_memory_of_an_unloaded_model_is_returned(tiny_model, base_model, tmp_path):
    """Two rounds, in a process of its own: what stays after an unload is far less than a model, and does not grow."""
    linked(tiny_model, tmp_path / "tiny")
    linked(base_model, tmp_path / "base")
    told = subprocess.run(
        [sys.executable, Path(__file__).with_name("rounds.py"), tmp_path, "2"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    rounds = [[float(value) for value in line.split()] for line in told.stdout.splitlines()]
    loaded, unloaded = zip(*rounds, strict=True)
    assert min(loaded) - max(unloaded) > 60, rounds  # whisper-base as int8 has 75 MB of weights
    assert max(unloaded) - min(unloaded) < 15, rounds


def test_nested_contexts_hold_several_models(make, memory):
    registry = make(2)
    with ExitStack() as leased:
        assert [leased.enter_context(registry.lease(name)) for name in "ab"] == ["a", "b"]
        assert memory.held == ["a", "b"]
