"""Read a configuration file, and say in words what is wrong with it.

Owns the way from bytes to `Config`. A mistake is told as file, dotted path, what is wrong and what is
accepted; all mistakes of a file are told at once. Values are never repeated where they may be secrets.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autostart.config.explain import dotted, explain
from autostart.config.models import Config
from autostart.errors import ConfigError, Problem

_WHOLE = 'an object with "services"'
_JSON_HINTS = {
    "Expecting property name enclosed in double quotes": 'keys in "double quotes"; no comma after the last, no comments',
    "Expecting value": "a value; no comma after the last, no comments",
    "Expecting ',' delimiter": "a comma between two entries",
    "Extra data": "one object and nothing after it",
}


def load(path: Path) -> Config:
    """Return the configuration in `path` (`.yaml` and `.yml` as YAML, all else as JSON).

    Raises ConfigError with every mistake in it, a missing or unreadable file included.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise ConfigError(path, [Problem("", f"cannot be read: {exc.strerror}")]) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(path, [Problem("", f"is not UTF-8 text (byte {exc.start})")]) from exc
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """Return the configuration in `text`; `path` decides on JSON or YAML and stands in the messages.

    Raises ConfigError with every mistake in it.
    """
    if not text.strip():
        raise ConfigError(path, [Problem("", "is empty", _WHOLE)])
    if path.suffix in {".yaml", ".yml"}:
        from autostart.config.yaml_file import read_yaml  # noqa: PLC0415 - most files are JSON

        document = read_yaml(text, path, _WHOLE)
    else:
        document = _read_json(text, path)
    if not isinstance(document, dict):
        raise ConfigError(path, [Problem("", "holds no object", _WHOLE)])
    document.pop("$schema", None)
    if problems := list(_unusable(document)):
        raise ConfigError(path, problems)
    directory = path.absolute().parent
    try:
        return Config.model_validate(document, context={"directory": directory}, by_alias=True, by_name=False)
    except ValidationError as exc:
        raise ConfigError(path, explain(exc)) from None


def _unusable(value: Any, keys: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Find the two kinds of characters that neither a path, a process nor a terminal takes."""
    match value:
        case str() if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
            yield Problem(
                dotted(keys), "holds a NUL or half a character", "text without \\u0000, \\ud800 to \\udfff"
            )
        case dict():
            for key, item in value.items():
                yield from list(_unusable(key, keys)) or _unusable(item, (*keys, str(key)))
        case list():
            for index, item in enumerate(value):
                yield from _unusable(item, (*keys, index))


def _read_json(text: str, path: Path) -> Any:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        for key, value in pairs:
            if key in keys:
                raise ConfigError(path, [Problem(key, "stands twice in the same object", "each key once")])
            keys[key] = value
        return keys

    try:
        return json.loads(text, object_pairs_hook=no_duplicates)
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        raise ConfigError(
            path, [Problem(where, f"is not JSON: {exc.msg}", _JSON_HINTS.get(exc.msg, ""))]
        ) from exc
    except RecursionError as exc:
        raise ConfigError(path, [Problem("", "is nested too deeply", _WHOLE)]) from exc
    except ValueError as exc:  # a number of more digits than Python reads
        raise ConfigError(path, [Problem("", "holds a number that is too long")]) from exc
