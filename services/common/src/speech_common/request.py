"""What a request asks for, checked: what every service's forms become. Imports nothing heavy."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from speech_common.errors import InvalidValue, UnsupportedField
from speech_common.formats import Granularity, ResponseFormat


class Spoken(Protocol):
    """What options say of the languages of a recording: codes."""

    @property
    def task(self) -> str:
        """Return `transcribe` or `translate`."""

    @property
    def language(self) -> str | None:
        """Return the one that is spoken; None detects it."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Return those to detect it among; none of them means all."""


Asks = TypeVar("Asks", bound=Spoken)


@dataclass(frozen=True, slots=True)
class TranscriptionRequest(Generic[Asks]):
    """One request. `model` None is the default one; `options` are the service's own."""

    model: str | None
    response_format: ResponseFormat
    granularities: frozenset[Granularity]
    stream: bool
    options: Asks


def refuse_unknown_languages(options: Spoken, known: Collection[str]) -> None:
    """Raise a FieldError for what a model cannot do that knows these languages."""
    if options.task == "translate" and len(known) == 1:
        raise UnsupportedField("model", "it knows only English, and cannot translate")
    for param, codes in (("language", (options.language,)), ("languages", options.languages)):
        for code in codes:
            if code is not None and code not in known:
                raise InvalidValue(param, code, f"this model knows only {', '.join(known)}")
