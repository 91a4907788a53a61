"""The schema and the reference page say what the models say."""

import json
from pathlib import Path

import pytest

from autostart.config import Config, parse
from autostart.config.explain import options
from autostart.config.reference import DOCS, files, page, schema, sections


@pytest.mark.parametrize("name", sorted(files()))
def test_committed_file_is_what_the_models_make(name: str) -> None:
    stale = f"docs/{name} is stale: run `python -m autostart.config.reference`"
    assert files()[name] == (DOCS / name).read_text(encoding="utf-8"), stale


def test_every_option_is_on_the_page_with_a_meaning() -> None:
    text = page()
    for model, places in sections():
        for place in filter(None, places):
            assert f"`{place}`" in text
        for key, field in options(model).items():
            assert field.description, f"{model.__name__}.{key} has no meaning"
            assert f"| `{key}` | " in text


def test_defaults_are_spelt_as_people_write_them() -> None:
    properties = schema()["$defs"]["Service"]["properties"]
    assert tuple(properties[key]["default"] for key in ("idleTimeout", "maxBodySize", "startTimeout")) == (
        "15m",
        "500MB",
        "1m",
    )
    assert '| `"15m"` |' in page()


def test_schema_defaults_are_what_the_models_default_to() -> None:
    bare = {"services": {"a.b": {"composeDir": "/x", "proxyPort": 1}}}
    made = schema()
    spelt = {key: node["default"] for key, node in made["properties"].items() if "default" in node}
    service = {
        key: node["default"]
        for key, node in made["$defs"]["Service"]["properties"].items()
        if "default" in node and key != "composeDir"
    }
    full = {"services": {"a.b": service | bare["services"]["a.b"]}} | spelt
    path = Path("/etc/autostart/config.json")
    assert parse(json.dumps(bare), path) == parse(json.dumps(full), path)


def test_schema_lets_a_file_name_it() -> None:
    assert "$schema" in schema()["properties"]
    assert schema()["additionalProperties"] is False
    assert set(options(Config)) | {"$schema"} == set(schema()["properties"])
