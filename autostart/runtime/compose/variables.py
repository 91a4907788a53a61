"""Variables in compose files, and the `.env` they come from. Pure but for the reading; imports nothing of ours."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_VARIABLE = re.compile(
    r"\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<operator>:?[-+?])(?P<word>[^${}]*))?\})"
)
"""A variable whose default holds none, so that `${A:-${B}}` is filled in from the inside."""
_ESCAPED_DOLLAR = "\0"


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """Fill in `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:+other}`, `${NAME:?error}` in all strings of `value`.

    Raises ValueError for a `?` whose variable is not set.
    """
    if isinstance(value, str):
        text, found = value.replace("$$", _ESCAPED_DOLLAR), 1
        while found:
            text, found = _VARIABLE.subn(lambda match: _substitute(match, variables), text)
        return text.replace(_ESCAPED_DOLLAR, "$")
    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    return value


def _substitute(match: re.Match[str], variables: Mapping[str, str]) -> str:
    name, operator, word = match["plain"] or match["name"], match["operator"] or "", match["word"] or ""
    known = variables.get(name)
    known = known and known.replace("$", _ESCAPED_DOLLAR)  # a value is not looked into again
    is_set = bool(known) if operator.startswith(":") else known is not None
    if operator.endswith("+"):
        return word if is_set else ""
    if is_set:
        return known or ""
    if operator.endswith("?"):
        raise ValueError(f"the variable {name} is not set: {word or 'it is required'}")
    return word if operator.endswith("-") else ""


def read_env_file(path: Path) -> dict[str, str]:
    """Read a `.env`: NAME=value a line, quotes around the value taken off, # begins a comment."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        if value[:1] in {'"', "'"} and value.endswith(value[0]) and len(value) > 1:
            value = value[1:-1]
        else:
            value = re.split(r"\s#", value, maxsplit=1)[0].rstrip()
        found[name.strip()] = value
    return found
