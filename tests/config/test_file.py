"""From bytes to a configuration: JSON, YAML, and files that are neither."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autostart import config
from autostart.errors import ConfigError

ROOT = Path(__file__).parents[2]
SERVICE = {"composeDir": "/opt/a", "proxyPort": 8001}


def told(text: str, name: str = "config.json") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, Path("/etc/autostart") / name)
    return [str(problem) for problem in caught.value.problems]


def test_the_file_of_the_first_users_loads_unchanged() -> None:
    loaded = config.load(ROOT / "config.json")
    assert list(loaded.services) == ["whisper.example.org", "whisperx.example.org"]
    whisperx = loaded.services["whisperx.example.org"]
    assert ("WhisperX API (with diarization)", Path("/opt/whisperx"), 8002, True, ("whisperx",)) == (
        whisperx.name,
        whisperx.compose_dir,
        whisperx.proxy_port,
        whisperx.blocking,
        whisperx.containers,
    )
    assert (
        whisperx.idle_timeout,
        whisperx.start_timeout,
        whisperx.stop_timeout,
        whisperx.max_body_size,
        whisperx.runtime.kind,
    ) == (900.0, 60.0, 10.0, 500_000_000, "compose")
    assert loaded.listen == ("127.0.0.1:8890",)


def test_every_option_is_read() -> None:
    document = {
        "$schema": "./docs/config.schema.json",
        "listen": ["[::1]:8890", "unix:/run/autostart/http.sock"],
        "admin": {"socket": "/run/a.sock", "metrics": None},
        "auth": {"apiKeys": [{"name": "all", "hash": "sha256:" + "0" * 64}]},
        "trustedProxies": ["10.1.0.0/16"],
        "stateFile": None,
        "drainTimeout": "1m",
        "spoolDir": "/spool",
        "spoolSize": "1GiB",
        "log": {"level": "debug", "requests": False},
        "services": {
            "A.Example.org.": SERVICE
            | {
                "aliases": ["B.example.org"],
                "idleTimeout": "never",
                "startTimeout": 90,
                "waitTimeout": "2m",
                "stopMethod": "pause",
                "readiness": {"path": "/health", "statuses": [200, "300-399"], "healthCheck": "always"},
                "maxBodySize": "1GB",
                "auth": "none",
                "cors": {"origins": ["*"], "maxAge": "1h"},
                "quiet": {"userAgents": ["*Uptime*"]},
                "failureDetails": "log",
            },
            "c.example.org": {
                "proxyPort": 8003,
                "runtime": {"kind": "process", "command": ["serve"], "cwd": "work", "env": {"A": "b"}},
            },
        },
    }
    loaded = config.parse(json.dumps(document), Path("/etc/autostart/config.json"))
    first, second = loaded.services.values()
    assert list(loaded.services) == ["a.example.org", "c.example.org"]
    assert (float("inf"), 90.0, 120.0, ("b.example.org",)) == (
        first.idle_timeout,
        first.start_timeout,
        first.wait_timeout,
        first.aliases,
    )
    assert [first.readiness.accepts(status) for status in (200, 302, 404)] == [True, True, False]
    assert loaded.auth_for(first) is None
    assert loaded.auth is loaded.auth_for(second)
    assert isinstance(second.runtime, config.ProcessRuntime)
    assert Path("/etc/autostart/work") == second.runtime.cwd


def test_relative_paths_begin_at_the_configuration_file(tmp_path: Path) -> None:
    service = {
        "proxyPort": 8001,
        "runtime": {"kind": "process", "command": ["x"]},
        "auth": {"htpasswd": "users"},
    }
    (tmp_path / "config.json").write_text(
        json.dumps({"services": {"a.b": service}, "stateFile": "state.json"})
    )
    loaded = config.load(tmp_path / "config.json")
    found = loaded.services["a.b"]
    assert isinstance(found.auth, config.Auth)
    assert isinstance(found.runtime, config.ProcessRuntime)
    assert (tmp_path / "users", tmp_path, tmp_path / "state.json") == (
        found.auth.htpasswd,
        found.runtime.cwd,
        loaded.state_file,
    )


@pytest.mark.parametrize("name", ["config.yaml", "config.yml"])
def test_yaml_says_the_same_as_json(name: str) -> None:
    text = "# ours\nservices:\n  a.example.org: {composeDir: /opt/a, proxyPort: 8001, blocking: yes, idleTimeout: 5m}\n"
    document = {"services": {"a.example.org": SERVICE | {"blocking": True, "idleTimeout": "5m"}}}
    path = Path("/etc/autostart/config.json")
    assert config.parse(json.dumps(document), path) == config.parse(text, path.with_name(name))


def test_yaml_anchors_and_merges_are_understood() -> None:
    text = (
        "services:\n  a.b: &a {composeDir: /opt/a, proxyPort: 8001, idleTimeout: 5m}\n"
        "  c.d:\n    <<: *a\n    composeDir: /opt/b\n    proxyPort: 8002\n"
    )
    loaded = config.parse(text, Path("config.yaml"))
    assert [service.idle_timeout for service in loaded.services.values()] == [300.0, 300.0]


def test_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"services": {"a.b": SERVICE}}), encoding="utf-8-sig")
    assert list(config.load(path).services) == ["a.b"]


WHOLE = '(accepted: an object with "services")'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", f"is empty {WHOLE}"),
        (" \n\t", f"is empty {WHOLE}"),
        ("[]", f"holds no object {WHOLE}"),
        ("null", f"holds no object {WHOLE}"),
        ("5", f"holds no object {WHOLE}"),
        ("{", "line 1, column 2: is not JSON: Expecting property name enclosed in double quotes"),
        (
            '{\n  "services": {},\n}',
            "line 3, column 1: is not JSON: Expecting property name enclosed in double quotes",
        ),
        ('{"a": }', "line 1, column 7: is not JSON: Expecting value"),
        ('{"a": 1} {}', "line 1, column 10: is not JSON: Extra data"),
        ('{"a": 1 "b": 2}', "line 1, column 9: is not JSON: Expecting ',' delimiter"),
        ("services: {}", "line 1, column 1: is not JSON: Expecting value"),
        ('{"listen": [], "listen": []}', "listen: stands twice in the same object (accepted: each key once)"),
        (
            '{"services": {"a.b": {}, "a.b": {}}}',
            "a.b: stands twice in the same object (accepted: each key once)",
        ),
        ('{"a":' * 100_000, f"is nested too deeply {WHOLE}"),
        ("[" * 100_000, f"is nested too deeply {WHOLE}"),
        ('{"a": ' + "9" * 5000 + "}", "holds a number that is too long"),
    ],
)
def test_broken_json_is_told_with_its_place(text: str, expected: str) -> None:
    (problem,) = told(text)
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# nothing\n", f"holds no object {WHOLE}"),
        ("- a\n", f"holds no object {WHOLE}"),
        ("a: [", "line 1, column 5: is not YAML: "),
        ("services: {}\nservices: {}\n", "line 2, column 1: is not YAML: 'services' stands twice"),
        ("a: !!python/object/apply:os.system [id]", "line 1, column 4: is not YAML: could not determine"),
        ("? {a: b}\n: c\n", "line 1, column 3: is not YAML: a key must be a word"),
        ("a: 2024-13-45\n", "is not YAML: it holds a date or number that does not exist"),
        ("a: *b\n", "line 1, column 4: is not YAML: "),
        ("a: \x00\n", "character 3: is not YAML: "),
        ("[" * 5000, f"is nested too deeply {WHOLE}"),
    ],
)
def test_broken_yaml_is_told_with_its_place(text: str, expected: str) -> None:
    (problem,) = told(text, "config.yaml")
    assert problem.startswith(expected)


def test_file_that_is_not_there_or_not_text_is_told(tmp_path: Path) -> None:
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\x7fELF\xff\xfe")
    expected = {
        tmp_path / "missing.json": "cannot be read: No such file or directory",
        tmp_path: "cannot be read: Is a directory",
        binary: "is not UTF-8 text (byte 4)",
    }
    for path, message in expected.items():
        with pytest.raises(ConfigError) as caught:
            config.load(path)
        assert f"{path}: {message}" == str(caught.value)


@given(st.text(max_size=200))
def test_no_text_whatsoever_raises_anything_but_config_error(text: str) -> None:
    for name in ("config.json", "config.yaml"):
        with pytest.raises(ConfigError):
            config.parse(text, Path(name))


VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["none", "compose"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text("xyz", max_size=3) | st.sampled_from(["kind", "command"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
OPTIONS = st.sampled_from([field.alias for field in config.Service.model_fields.values()])


@given(
    st.dictionaries(OPTIONS, VALUES, max_size=5),
    st.dictionaries(st.sampled_from(["auth", "log", "listen"]), VALUES),
)
def test_no_value_anywhere_gives_a_message_in_pydantics_words(
    service: dict[str, Any], others: dict[str, Any]
) -> None:
    try:
        config.parse(json.dumps({"services": {"a.b": service}} | others), Path("config.json"))
    except ConfigError as exc:
        for problem in exc.problems:
            for word in ("function-", "[key]", "literal[", ".object.", ".compose.", ".process.", ".none."):
                assert word not in f"{problem.where}."
            assert "nput should" not in problem.message
            assert problem.where.startswith(("services", "auth", "log", "listen"))
