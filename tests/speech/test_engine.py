"""What is done when a model lacks what a request needs, or its device fails: around models that only fail."""

import io
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from hearing import Heard
from speech_common.errors import InvalidValue, ModelUnavailable, UnsupportedField
from speech_common.models.checkpoint import Facts
from whisper_server.engine import Engine
from whisper_server.model import Model
from whisper_server.options import Options
from whisper_server.settings import Settings

LAUNCH = RuntimeError("CUDA failed with error unspecified launch failure")
NO_ROOM = RuntimeError("CUDA failed with error out of memory")


class Failing:
    """A model on a device, whose work raises `failure`, and a window of silence, tried after it, `afterwards`."""

    has_lost_its_device = Model.has_lost_its_device

    def __init__(self, *, device="cuda", failure=LAUNCH, afterwards=None, facts=None):
        self.model = SimpleNamespace(device=device)
        self.facts = facts or Facts(is_multilingual=True, languages=("en", "fr"))
        self.failure = failure
        self.afterwards = afterwards

    @property
    def supported_languages(self):
        raise self.failure

    def try_out(self):
        if self.afterwards is not None:
            raise self.afterwards


class Registry:
    """Has one model, and notes why nothing works any more."""

    def __init__(self, model):
        self.model = model
        self.failures = []

    @contextmanager
    def lease(self, _name, _check):
        yield self.model

    def fail(self, cause):
        self.failures.append(str(cause))


def asked(model, **options):
    registry = Registry(model)
    engine = Engine(registry, Settings.from_environment({}))
    try:
        engine.run("name", io.BytesIO(), Options(**options), Heard())
    except Exception as exc:  # noqa: BLE001 -- it is what is looked at
        return exc, registry.failures
    pytest.fail("it works")


def test_gpu_that_works_no_more_fails_the_service():
    error, failures = asked(Failing(afterwards=LAUNCH))
    assert isinstance(error, ModelUnavailable)
    assert failures == ["the cuda device works no more: CUDA failed with error unspecified launch failure"]


def test_gpu_that_still_works_has_had_a_bad_request():
    assert asked(Failing()) == (LAUNCH, [])


@pytest.mark.parametrize("afterwards", [None, NO_ROOM])
def test_want_of_memory_on_the_gpu_is_told_and_passes(afterwards):
    error, failures = asked(Failing(failure=NO_ROOM, afterwards=afterwards))
    assert isinstance(error, ModelUnavailable)
    assert "lower WHISPER_BATCH_SIZE" in error.reason
    assert failures == []


def test_cpu_is_not_lost():
    assert asked(Failing(device="cpu", afterwards=LAUNCH)) == (LAUNCH, [])


def test_words_of_a_model_that_cannot_time_them_are_refused():
    model = Failing(facts=Facts(is_multilingual=True, languages=("en",), times_words=False))
    error, _ = asked(model, language="en", word_timestamps=True)
    assert isinstance(error, UnsupportedField)
    assert error.param == "timestamp_granularities"
    assert asked(model, language="en")[0] is LAUNCH


def test_language_that_a_model_cannot_tell_is_asked_for():
    model = Failing(facts=Facts(is_multilingual=True, languages=("en",), tells_languages=False))
    error, _ = asked(model)
    assert isinstance(error, InvalidValue)
    assert error.param == "language"
    assert asked(model, language="en")[0] is LAUNCH
    engine = Engine(Registry(model), Settings.from_environment({}))
    with pytest.raises(InvalidValue, match="lang_ids"):
        engine.detect_language("name", io.BytesIO(), Heard())
