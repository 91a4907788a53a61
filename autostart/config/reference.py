"""The JSON schema and the reference page, both made from the models.

`python -m autostart.config.reference` writes docs/config.schema.json and docs/configuration.md; a test fails
when either is stale. Imports the models and their words.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from autostart.config.explain import allows_null, bare, is_model, options, type_words
from autostart.config.models import Config, Service
from autostart.config.values import Words

DOCS = Path(__file__).parents[2] / "docs"

_INTRODUCTION = """\
<!-- Made by `python -m autostart.config.reference` from the models; changes belong there. -->

# Configuration

One file, JSON or YAML (`.yaml`, `.yml`). Its smallest form:

```json
{
  "$schema": "./config.schema.json",
  "services": {
    "whisper.example.org": {
      "composeDir": "/opt/whisper-faster",
      "proxyPort": 8001
    }
  }
}
```

`$schema` is for editors, which then complete and explain the options; autostart ignores it.
[config.schema.json](config.schema.json) lies beside this page. `autostart check` finds every mistake in a file.

Durations are `"90s"`, `"15m"`, `"1h30m"`, `"200ms"` or a number of seconds. Sizes are `"500MB"` (10⁶ bytes
each), `"4GiB"` (2³⁰ bytes each) or a number of bytes. An unknown option is an error, and so is a key that
stands twice.
"""


def schema() -> dict[str, Any]:
    """Return the JSON schema of the file, with defaults as people write them."""
    made = Config.model_json_schema(by_alias=True)
    for model, _ in sections():
        node = made if model is Config else made["$defs"][model.__name__]
        for key, field in options(model).items():
            described = node["properties"][key]
            described.pop("title", None)
            described.pop("default", None)
            if not field.is_required() and not isinstance(field.default, BaseModel):
                described["default"] = _plain_default(field)
    made["properties"] = {
        "$schema": {"type": "string", "description": "Where editors find this schema."}
    } | made["properties"]
    return (
        {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        | made
        | {"title": "autostart configuration"}
    )


def page() -> str:
    """Return the reference page: a table for each model."""
    return "\n".join([_INTRODUCTION, *(_section(model, places) for model, places in sections())])


def files() -> dict[str, str]:
    """Return what the files below docs/ are to hold, by their names."""
    return {
        "config.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        "configuration.md": page(),
    }


def sections() -> list[tuple[type[BaseModel], list[str]]]:
    """Return every model with the places where it may stand, the whole file first."""
    found: dict[type[BaseModel], list[str]] = {}

    def visit(model: type[BaseModel], place: str) -> None:
        found.setdefault(model, []).append(place)
        for key, field in options(model).items():
            for inner, suffix in _models_in(field.annotation):
                visit(inner, f"{place}.{key}{suffix}".removeprefix("."))

    visit(Config, "")
    return sorted(found.items(), key=lambda item: (item[0] is not Config, item[0] is not Service))


def _models_in(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    annotation, _ = bare(annotation, ())
    if is_model(annotation):
        yield annotation, ""
    elif get_origin(annotation) is dict:
        for model, suffix in _models_in(get_args(annotation)[1]):
            yield model, f".<host>{suffix}"
    elif get_origin(annotation) is tuple:
        for model, suffix in _models_in(get_args(annotation)[0]):
            yield model, f"[]{suffix}"
    else:
        for part in get_args(annotation):
            yield from _models_in(part)


def _section(model: type[BaseModel], places: list[str]) -> str:
    title = "The file" if model is Config else " and ".join(f"`{place}`" for place in places)
    rows = [_row(key, field) for key, field in options(model).items()]
    table = "\n".join(["| Key | Accepted | Default | Meaning |", "|---|---|---|---|", *rows])
    return f'<a id="{model.__name__}"></a>\n\n## {title}\n\n{model.__doc__}\n\n{table}\n'


def _row(key: str, field: FieldInfo) -> str:
    cells = [f"`{key}`", _accepted(field), _default(field), field.description or ""]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _accepted(field: FieldInfo) -> str:
    """Say what is accepted; objects are links to their own tables."""
    links = [
        f"[{model.__name__}](#{model.__name__}){' (by host name)' if suffix == '.<host>' else ''}"
        for model, suffix in _models_in(field.annotation)
    ]
    if not links:
        text = type_words(field.annotation, tuple(field.metadata))
        return text + (" or null" if field.default is not None and allows_null(field.annotation) else "")
    listed = "a list of " if get_origin(bare(field.annotation, ())[0]) is tuple else ""
    none = ' or "none"' if "none" in _literals(field.annotation) else ""
    return listed + " or ".join(links) + none


def _literals(annotation: Any) -> set[str]:
    if isinstance(annotation, str):
        return {annotation}
    return {text for part in get_args(annotation) for text in _literals(part)}


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        return "its defaults"
    if field.default is None:
        return "left out"
    return f"`{json.dumps(_plain_default(field), ensure_ascii=False)}`"


def _plain_default(field: FieldInfo) -> Any:
    """Return the default as it would stand in the file: "15m", "500MB"."""
    value = field.default
    _, metadata = bare(field.annotation, tuple(field.metadata))
    spell = next((item.spell for item in metadata if isinstance(item, Words) and item.spell), None)
    if value is not None and spell is not None:
        return spell(value)
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def main() -> None:
    """Write both files."""
    DOCS.mkdir(exist_ok=True)
    for name, content in files().items():
        (DOCS / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
