"""What is loaded on first use: once for all, while those who wait may leave; and that every diarization is."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.abc import MetaPathFinder

import pytest
from speech_common.job import Abandoned
from waiting import LIMIT_S
from whisperx_server.lazy import Lazy
from whisperx_server.speakers.pyannote import Pyannote
from whisperx_server.speakers.senko import Senko


def leave():
    raise Abandoned


class Held:
    """A load that goes on until the test lets it end, and then does what the test says."""

    def __init__(self):
        self.may_end = threading.Event()
        self.outcomes = []
        self.calls = 0

    def __call__(self):
        self.calls += 1
        assert self.may_end.wait(LIMIT_S)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@pytest.fixture
def held():
    held = Held()
    yield held
    held.may_end.set()


def asked_together(lazy, held, count=4):
    """Ask in as many threads, let the load end when all of them wait, and return the futures of what they got."""
    together = threading.Barrier(count + 1)
    waiting = threading.local()

    def check():
        if not hasattr(waiting, "is_told"):
            waiting.is_told = True
            together.wait(LIMIT_S)

    with ThreadPoolExecutor(count) as pool:
        asked = [pool.submit(lazy.get, check) for _ in range(count)]
        together.wait(LIMIT_S)
        held.may_end.set()
    return asked


def test_all_who_ask_get_the_one_thing_that_was_loaded_once(held):
    held.outcomes = [object()]
    wanted = held.outcomes[0]
    lazy = Lazy(held, "load")
    assert [each.result() for each in asked_together(lazy, held)] == [wanted] * 4
    assert lazy.get(leave) is wanted
    assert held.calls == 1


def test_nothing_is_loaded_before_somebody_asks(held):
    Lazy(held, "load")
    assert held.calls == 0


def test_who_leaves_is_let_go_and_the_load_goes_on_for_the_next(held):
    held.outcomes = ["loaded"]
    lazy = Lazy(held, "load")
    for _ in range(2):
        with pytest.raises(Abandoned):
            lazy.get(leave)
    held.may_end.set()
    assert lazy.get() == "loaded"
    assert held.calls == 1


def test_an_error_reaches_all_who_wait_and_the_next_one_tries_again(held):
    held.outcomes = [ValueError("no such file"), "loaded"]
    lazy = Lazy(held, "load")
    errors = [each.exception() for each in asked_together(lazy, held)]
    assert [str(error) for error in errors] == ["no such file"] * 4
    assert held.calls == 1
    assert lazy.get() == "loaded"


def test_waiting_has_its_limit_and_the_load_none(held):
    held.outcomes = ["loaded"]
    lazy = Lazy(held, "load")
    with pytest.raises(TimeoutError):
        lazy.get(limit_s=0.0)
    held.may_end.set()
    assert lazy.get(limit_s=LIMIT_S) == "loaded"


class HeldImport(MetaPathFinder):
    """Holds every import of torch until the test lets it go on, and then finds none."""

    def __init__(self):
        self.may_end = threading.Event()

    def find_spec(self, name, path, target=None):
        if name == "torch":
            assert self.may_end.wait(LIMIT_S)
            raise ImportError("no torch here")


@pytest.fixture
def torch_is_held(monkeypatch):
    held = HeldImport()
    monkeypatch.setattr(sys, "meta_path", [held, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    yield held
    held.may_end.set()


@pytest.mark.parametrize("name", ["senko", "pyannote"])
def test_who_leaves_while_a_diarization_loads_is_let_go(name, torch_is_held, tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    diarizer = {
        "senko": lambda: Senko(device="cpu"),
        "pyannote": lambda: Pyannote(token="", model_dir=tmp_path, device="cpu", downloads_allowed=False),
    }[name]()
    with pytest.raises(Abandoned):
        diarizer.load(leave)
    with pytest.raises(Abandoned):
        diarizer.turns([], None, leave)
    torch_is_held.may_end.set()
    with pytest.raises(Exception, match="no torch here"):
        diarizer.load()
