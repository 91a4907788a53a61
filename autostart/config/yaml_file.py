"""Read YAML as strictly as JSON is read. Loaded only where a file is YAML: the library takes 2 MB of memory."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from autostart.errors import ConfigError, Problem


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice instead of keeping the last."""


def _construct_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    written: set[Any] = set()
    for key_node, _ in node.value:
        merges = key_node.tag == "tag:yaml.org,2002:merge"
        key = key_node.value if merges else loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
        if key in written:
            raise yaml.MarkedYAMLError(problem=f"{key!r} stands twice", problem_mark=key_node.start_mark)
        written.add(key)
    # Only now, because what `<<` brings in may be overridden by what is written.
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key_node, deep=True): loader.construct_object(value_node, deep=True)
        for key_node, value_node in node.value
    }


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def read_yaml(text: str, path: Path, accepted: str) -> Any:
    """Return the document in `text`. Raises ConfigError; `accepted` says what the whole file should be."""
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, made stricter
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(path, [Problem(where, f"is not YAML: {exc.problem}")]) from exc
    except RecursionError as exc:
        raise ConfigError(path, [Problem("", "is nested too deeply", accepted)]) from exc
    except yaml.reader.ReaderError as exc:
        raise ConfigError(path, [Problem(f"character {exc.position}", f"is not YAML: {exc.reason}")]) from exc
    except (
        yaml.YAMLError,
        ValueError,
    ) as exc:  # ValueError: a date or number that YAML allows and Python does not
        raise ConfigError(
            path, [Problem("", "is not YAML: it holds a date or number that does not exist")]
        ) from exc
