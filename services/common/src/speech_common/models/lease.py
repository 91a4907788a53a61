"""Use a model for one piece of work, and see what it cannot do and what its device no longer does.

Joins the registry, which has the models, with those who work for a request.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from speech_common.errors import InvalidValue, ModelUnavailable, UnsupportedField
from speech_common.job import Progress
from speech_common.models.checkpoint import Facts
from speech_common.models.faults import ModelError
from speech_common.models.registry import Registry
from speech_common.models.served import Served, is_want_of_memory

_log = logging.getLogger("speech.models")
M = TypeVar("M", bound=Served)
# The model's window has 448 tokens, of which up to 223 go to the prompt or to what was said before. The library lets
# hotwords take all the rest, and then, without a word, there is no room left for a transcript.
_HOTWORD_TOKENS = 112
UNTIMED = "this model cannot tell when a word is said, for its config.json has no alignment_heads"
"""Why a request is refused that needs the times of words."""


@contextmanager
def leased(registry: Registry[M], name: str, progress: Progress) -> Iterator[M]:
    """Use a model. A GPU that works no more fails the registry, and with it the process: only a new one gets it back.

    Raises ModelUnavailable for that, and for want of memory on the GPU, which passes; else as `Registry.lease`.
    """
    with registry.lease(name, progress.check) as model:
        try:
            yield model
        except RuntimeError as exc:
            if model.has_lost_its_device():
                cause = ModelError(f"the {model.model.device} device works no more: {exc}")
                _log.error("event=device_lost model=%s cause=%r", name, str(cause))
                registry.fail(cause)
                raise ModelUnavailable(str(cause)) from exc
            if is_want_of_memory(exc):
                raise ModelUnavailable(f"{exc}; a lower WHISPER_BATCH_SIZE takes less") from exc
            raise


def refuse_what_lacks(facts: Facts, *, detects: bool, times_words: bool = False) -> None:
    """Raise a FieldError where the files of a model lack what a request needs."""
    if times_words and not facts.times_words:
        raise UnsupportedField("timestamp_granularities", UNTIMED)
    if detects and not facts.tells_languages:
        raise InvalidValue(
            "language",
            "",
            "a language's code; this model cannot tell it by itself, for its config.json has no lang_ids",
        )


def refuse_long_hotwords(model: Served, hotwords: str | None) -> None:
    """Raise InvalidValue where hotwords would leave a transcript no room."""
    if hotwords and len(model.hf_tokenizer.encode(hotwords)) > _HOTWORD_TOKENS:
        raise InvalidValue("hotwords", hotwords, f"at most {_HOTWORD_TOKENS} tokens, some 80 words")
