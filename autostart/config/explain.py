"""Turn what pydantic found into sentences: where, what is wrong, and what is accepted.

Owns the words for types, which the reference page uses too. Imports models, values and errors. pydantic's own
names for validators and branches of unions never reach a reader, and neither does a value that may be secret.
"""

import difflib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, Discriminator, Tag, ValidationError
from pydantic.fields import FieldInfo

from autostart.config.models import Config
from autostart.config.parts import Misfit
from autostart.config.values import Words, shown
from autostart.errors import Problem

_SECRET = {"auth", "env", "command"}
_LIMITS = {
    "greater_than_equal": "is too small",
    "less_than_equal": "is too large",
}


def explain(error: ValidationError) -> list[Problem]:
    """Return every mistake of the file in the order of the file."""
    return [problem for found in error.errors(include_url=False) for problem in _problems(found)]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a mistake is: the keys of the file that lead there, and what the models say of it."""

    keys: tuple[str | int, ...]
    annotation: Any
    metadata: tuple[Any, ...] = ()
    field: FieldInfo | None = None
    owner: Any = None
    """The model that has no such option, where that is the mistake."""

    @property
    def accepted(self) -> str:
        text = type_words(self.annotation, self.metadata)
        if self.field is not None and self.field.default is not None and allows_null(self.field.annotation):
            text += " or null"
        return text

    @property
    def secret(self) -> bool:
        return not _SECRET.isdisjoint(self.keys)


def _problems(error: Any) -> list[Problem]:
    place = _walk(error["loc"])
    where = dotted(place.keys)
    given = error.get("input")
    cause = error.get("ctx", {}).get("error")
    match error["type"]:
        case "extra_forbidden":
            return [_unknown_option(place)]
        case "missing":
            return [Problem(where, "is missing", place.accepted)]
        case "value_error" if isinstance(cause, Misfit):
            return [
                Problem(dotted((*place.keys, *keys)), message, accepted)
                for keys, message, accepted in cause.found
            ]
        case "value_error":
            return [Problem(where, str(cause), place.accepted)]
        case "union_tag_not_found" | "union_tag_invalid":
            kinds = " or ".join(shown(tag) for tag in _branches(place.annotation, place.metadata))
            return [
                Problem(f"{where}.kind", f"{_described(given.get('kind'), place)} does not fit here", kinds)
            ]
        case "greater_than" if error["ctx"]["gt"] == 0:
            return [Problem(where, "must be more than zero", place.accepted)]
        case "too_short" if given:
            return []  # its items are what is wrong, and are told by themselves
        case "too_short" | "string_too_short":
            return [Problem(where, "is empty", place.accepted)]
        case kind if kind in _LIMITS:
            return [Problem(where, f"{_described(given, place)} {_LIMITS[kind]}", place.accepted)]
        case _:
            return [Problem(where, f"{_described(given, place)} does not fit here", place.accepted)]


def _described(value: object, place: _Place) -> str:
    """Name the value itself where that helps and is safe, else its kind."""
    if isinstance(value, str | int | float) and not place.secret:
        return shown(value)
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return "this"


def _unknown_option(place: _Place) -> Problem:
    known = sorted(options(place.owner))
    written = str(place.keys[-1])
    by_folded = {option.lower(): option for option in known}
    near = difflib.get_close_matches(written.lower().replace("_", ""), by_folded, n=1, cutoff=0.75)
    message = "there is no such option" + (f"; is {by_folded[near[0]]} meant?" if near else "")
    return Problem(dotted(place.keys), message, ", ".join(known))


# --- the way from a place in the file to the models -------------------------------------------------


def dotted(keys: tuple[str | int, ...]) -> str:
    """Return the path as people read it: `services.whisper.example.org.aliases[0]`."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def _walk(location: tuple[str | int, ...]) -> _Place:
    """Follow pydantic's location through the models, dropping what is not a key of the file."""
    place = _Place((), Config)
    parts = list(location)
    while parts:
        annotation, metadata = bare(place.annotation, place.metadata)
        branches = _branches(annotation, metadata)
        if branches:
            # The element is the branch's tag, never a key. Where nothing follows, no branch fits better
            # than another.
            if len(parts) == 1:
                return place
            place = _Place(place.keys, branches[str(parts.pop(0))])
            continue
        part = parts.pop(0)
        keys = (*place.keys, part)
        if is_model(annotation):
            field = options(annotation).get(str(part))
            if field is None:
                return _Place(keys, Any, owner=annotation)
            place = _Place(keys, field.annotation, tuple(field.metadata), field)
        elif get_origin(annotation) is dict:
            of_keys, of_values = get_args(annotation)
            if parts[:1] == ["[key]"]:
                return _Place(keys, of_keys)
            place = _Place(keys, of_values)
        elif get_origin(annotation) is tuple:
            place = _Place(keys, get_args(annotation)[0])
        else:
            return _Place(keys, Any)
    return place


def bare(annotation: Any, metadata: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Take off `Annotated` and `| None`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = (*metadata, *more)
        elif _is_union(annotation) and len(rest := _without_null(annotation)) == 1:
            annotation = rest[0]
        else:
            return annotation, metadata


def _branches(annotation: Any, metadata: tuple[Any, ...]) -> dict[str, Any]:
    """Return the branches of a tagged union by their tags; empty for everything else."""
    annotation, metadata = bare(annotation, metadata)
    if not any(isinstance(item, Discriminator) for item in metadata):
        return {}
    found = {}
    for branch in get_args(annotation):
        inner, tags = bare(branch, ())
        found[next(item.tag for item in tags if isinstance(item, Tag))] = inner
    return found


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _without_null(annotation: Any) -> list[Any]:
    return [part for part in get_args(annotation) if part is not types.NoneType]


def allows_null(annotation: Any) -> bool:
    """Say whether `null` may stand there."""
    return _is_union(annotation) and types.NoneType in get_args(annotation)


def is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Say whether the annotation is one of the models."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def options(model: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """Return the fields of `model` by their keys in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


# --- words ------------------------------------------------------------------------------------------

_PLAIN = {str: "text", bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}


def type_words(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """Say in words what is accepted: `"90s", "15m", …`, `"stop" or "pause"`, `a list, each item text`."""
    for item in metadata:
        if isinstance(item, Words):
            return item.text
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        return type_words(annotation, tuple(more))
    if _is_union(annotation):
        return " or ".join(type_words(part) for part in _without_null(annotation))
    if get_origin(annotation) is Literal:
        *first, last = (shown(value) for value in get_args(annotation))
        return f"{', '.join(first)} or {last}" if first else last
    if get_origin(annotation) is tuple:
        return f"a list, each item {_item_words(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        of_keys, of_values = get_args(annotation)
        return f"an object: each key {type_words(of_keys)}, each value {_item_words(of_values)}"
    if is_model(annotation):
        return f"an object with {', '.join(options(annotation))}" if options(annotation) else "an object"
    return _PLAIN.get(annotation, "")


def _item_words(annotation: Any) -> str:
    return "an object" if is_model(annotation) else type_words(annotation)
