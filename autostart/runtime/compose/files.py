"""Compose files as files: reading one, laying one over another, and which others they name. Nothing of Docker."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from autostart.errors import ComposeFileInvalid
from autostart.runtime.compose.variables import interpolate


class _Loader(yaml.SafeLoader):
    """YAML with compose's own tags (`!reset`, `!override`), whose values are taken as they stand."""


def _untagged(loader: yaml.SafeLoader, _tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_Loader.add_multi_constructor("!", _untagged)


def load(path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the model in one file, with `variables` filled in. Raises ComposeFileInvalid."""
    try:
        model = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else "?"
        raise ComposeFileInvalid(path, f"line {line}: {exc.problem or exc.context}") from exc
    except (yaml.YAMLError, OSError, ValueError) as exc:
        raise ComposeFileInvalid(path, str(exc)) from exc
    if not isinstance(model, dict):
        raise ComposeFileInvalid(path, "it must be a mapping with the key `services`")
    try:
        return {key: interpolate(value, variables) for key, value in model.items()}
    except ValueError as exc:
        raise ComposeFileInvalid(path, str(exc)) from exc


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay one model over another: mappings key by key, lists one behind the other, the rest replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge(old, value)
        elif isinstance(old, list) and isinstance(value, list) and key != "command":
            merged[key] = old + value
        else:
            merged[key] = value
    return merged


def named_files(directory: Path, model: Mapping[str, Any], variables: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files that `model`, whose paths start at `directory`, names, and those that these name in turn.

    They come from `include`, `extends` and `env_file`, and may not be there. What cannot be read or has another
    shape names nothing: compose tells what is wrong with it.
    """
    seen: set[Path] = set()
    unread = [(directory, model)]
    while unread:
        base, model = unread.pop()
        env_files, others = _names(base, model)
        yield from env_files
        for path, its_base in others:
            if path in seen:
                continue
            seen.add(path)
            yield path
            try:
                unread.append((its_base, load(path, variables)))
            except ComposeFileInvalid:
                continue


def _names(base: Path, model: Mapping[str, Any]) -> tuple[list[Path], list[tuple[Path, Path]]]:
    """Return what one model names: files of variables, and compose files with where their own paths start."""
    env_files: list[Path] = []
    others: list[tuple[Path, Path]] = []
    for entry in _list(model.get("include")):
        options = entry if isinstance(entry, dict) else {"path": entry}
        paths = [base / path for path in _paths(options.get("path"))]
        if not paths:
            continue
        project = base / str(options.get("project_directory") or paths[0].parent)
        env_files += [project / ".env", *(base / path for path in _paths(options.get("env_file")))]
        others += [(path, project) for path in paths]
    services = model.get("services")
    for service in services.values() if isinstance(services, dict) else ():
        if not isinstance(service, dict):
            continue
        env_files += [base / path for path in _paths(service.get("env_file"))]
        extends = service.get("extends")
        if isinstance(extends, dict):
            others += [(base / path, (base / path).parent) for path in _paths(extends.get("file"))]
    return env_files, others


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _paths(value: object) -> Iterator[str]:
    """Yield the paths in a value that is one, or a list of them or of mappings with the key `path`."""
    for entry in _list(value):
        path = entry.get("path") if isinstance(entry, dict) else entry
        if isinstance(path, str):
            yield path
