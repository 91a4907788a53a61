"""Every kind of mistake is told with its place, in plain words, and with what is accepted instead."""

import json
from pathlib import Path
from typing import Any

import pytest

from autostart import config
from autostart.errors import ConfigError

PERCENT = "a number above 0 such as 20 or 150.5"
DURATION = '"90s", "15m", "1h30m" or a number of seconds'
SERVICE = {"composeDir": "/opt/a", "proxyPort": 8001}
PROCESS = {"runtime": {"kind": "process", "command": ["serve"]}, "proxyPort": 8002}
ORIGIN = '"https://app.example.org" (no slash after it), "null" or "*"'
AUTH = "an object with htpasswd, apiKeys, realm, allow, forwardCredentials"


def told(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(json.dumps(document), Path("config.json"))
    return [str(problem) for problem in caught.value.problems]


def told_of_service(**options: Any) -> list[str]:
    return [
        problem.removeprefix("services.a.b.") for problem in told({"services": {"a.b": SERVICE | options}})
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": 5}, "name: 5 does not fit here (accepted: text)"),
        ({"name": None}, "name: null does not fit here (accepted: text)"),
        ({"composeDir": "opt"}, 'composeDir: "opt" is not an absolute path (accepted: an absolute path)'),
        ({"composeDir": ["/opt"]}, "composeDir: a list does not fit here (accepted: an absolute path)"),
        ({"proxyPort": 0}, "proxyPort: 0 is too small (accepted: a port number, 1 to 65535)"),
        ({"proxyPort": 65536}, "proxyPort: 65536 is too large (accepted: a port number, 1 to 65535)"),
        ({"proxyPort": "8001"}, 'proxyPort: "8001" does not fit here (accepted: a port number, 1 to 65535)'),
        ({"proxyPort": True}, "proxyPort: true does not fit here (accepted: a port number, 1 to 65535)"),
        ({"blocking": "yes"}, 'blocking: "yes" does not fit here (accepted: true or false)'),
        ({"blocking": 1}, "blocking: 1 does not fit here (accepted: true or false)"),
        ({"containers": "web"}, 'containers: "web" does not fit here (accepted: a list, each item text)'),
        ({"containers": ["web", 5]}, "containers[1]: 5 does not fit here (accepted: text)"),
        ({"aliases": ["a b"]}, 'aliases[0]: "a b" is not a host name (accepted: a host name without port)'),
        ({"aliases": ["x:80"]}, 'aliases[0]: "x:80" is not a host name (accepted: a host name without port)'),
        (
            {"idleTimeout": "15 min"},
            f'idleTimeout: "15 min" is not a duration (accepted: {DURATION}, or "never")',
        ),
        ({"idleTimeout": {}}, f'idleTimeout: {{}} is not a duration (accepted: {DURATION}, or "never")'),
        (
            {"busyPath": "busy"},
            'busyPath: "busy" does not begin with a slash (accepted: a path that begins with "/")',
        ),
        ({"busyCpuPercent": 0}, f"busyCpuPercent: must be more than zero (accepted: {PERCENT})"),
        ({"busyCpuPercent": "20%"}, f'busyCpuPercent: "20%" does not fit here (accepted: {PERCENT})'),
        ({"busyCpuPercent": True}, f"busyCpuPercent: true does not fit here (accepted: {PERCENT})"),
        (
            {"busyCpuPercent": 10**400},
            f"busyCpuPercent: 1{'0' * 56}… does not fit here (accepted: {PERCENT})",
        ),
        ({"stopTimeout": -1}, f"stopTimeout: -1 is not a duration (accepted: {DURATION})"),
        ({"startTimeout": "never"}, f'startTimeout: "never" is not a duration (accepted: {DURATION})'),
        ({"startTimeout": 0}, f"startTimeout: must be more than zero (accepted: {DURATION})"),
        ({"waitTimeout": "0s"}, f"waitTimeout: must be more than zero (accepted: {DURATION})"),
        ({"stopMethod": "kill"}, 'stopMethod: "kill" does not fit here (accepted: "stop" or "pause")'),
        (
            {"maxBodySize": "5 X"},
            'maxBodySize: "5 X" is not a size (accepted: "500MB", "4GiB" or a number of bytes)',
        ),
        (
            {"readiness": {"path": "health"}},
            'readiness.path: "health" does not begin with a slash (accepted: a path that begins with "/")',
        ),
        (
            {"readiness": {"statuses": ["2xx"]}},
            'readiness.statuses[0]: "2xx" is not a status or a range of statuses (accepted: "200" or "200-299")',
        ),
        (
            {"readiness": {"statuses": ["299-200"]}},
            'readiness.statuses[0]: "299-200" is not a status or a range of statuses (accepted: "200" or "200-299")',
        ),
        (
            {"readiness": []},
            "readiness: a list does not fit here (accepted: an object with path, statuses, attemptTimeout, healthCheck)",
        ),
        ({"cors": {}}, f"cors.origins: is missing (accepted: a list, each item {ORIGIN})"),
        (
            {"cors": {"origins": []}},
            f"cors.origins: is empty (accepted: a list, each item {ORIGIN})",
        ),
        (
            {"cors": {"origins": ["https://x\r\nSet-Cookie: a=b"]}},
            f'cors.origins[0]: "https://x\\r\\nSet-Cookie: a=b" is not an origin (accepted: {ORIGIN})',
        ),
        (
            {"cors": {"origins": ["*", "https://x/"]}},
            f'cors.origins[1]: "https://x/" is not an origin (accepted: {ORIGIN})',
        ),
        (
            {"cors": {"origins": ["x.org"]}},
            f'cors.origins[0]: "x.org" is not an origin (accepted: {ORIGIN})',
        ),
        (
            {"cors": {"origins": ["*"], "headers": ["x\ny"]}},
            'cors.headers[0]: "x\\ny" is not a name that HTTP knows (accepted: the name of a header, or "*")',
        ),
        (
            {"cors": {"origins": ["*"], "methods": ["GET\n"]}},
            'cors.methods[0]: "GET\\n" is not a name that HTTP knows (accepted: a method such as "GET")',
        ),
        (
            {"quiet": {"methods": ["GET,PUT"]}},
            'quiet.methods[0]: "GET,PUT" is not a name that HTTP knows (accepted: a method such as "GET")',
        ),
        (
            {"quiet": {"paths": ["favicon.ico"]}},
            (
                'quiet.paths[0]: "favicon.ico" fits no path, for these begin with a slash '
                '(accepted: a path such as "/favicon.ico" or "*.png")'
            ),
        ),
        (
            {"readiness": {"path": "/a b\r\nX: y"}},
            (
                'readiness.path: "/a b\\r\\nX: y" holds what may not stand in a request line '
                '(accepted: a path that begins with "/")'
            ),
        ),
        (
            {"readiness": {"statuses": []}},
            'readiness.statuses: is empty (accepted: a list, each item "200" or "200-299")',
        ),
        (
            {"readiness": {"attemptTimeout": 0}},
            f"readiness.attemptTimeout: must be more than zero (accepted: {DURATION})",
        ),
        (
            {"runtime": {"kind": "process", "command": ["x"], "env": {"KEY=secret": ""}}},
            'runtime.env: the name of a variable is empty or holds "=" (accepted: {"NAME": "value"})',
        ),
        ({"auth": "None"}, f'auth: text does not fit here (accepted: {AUTH} or "none")'),
        ({"auth": []}, f'auth: a list does not fit here (accepted: {AUTH} or "none")'),
        (
            {"auth": {}},
            f'auth: nobody could log in: it needs htpasswd, apiKeys or both (accepted: {AUTH} or "none")',
        ),
        (
            {"auth": {"htpaswd": "/x", "htpasswd": "/x"}},
            (
                "auth.htpaswd: there is no such option; is htpasswd meant? "
                "(accepted: allow, apiKeys, forwardCredentials, htpasswd, realm)"
            ),
        ),
        (
            {"auth": {"htpasswd": 5}},
            "auth.htpasswd: a number does not fit here (accepted: a path; a relative one begins at the configuration file)",
        ),
        ({"auth": {"apiKeys": [{"name": ""}]}}, "auth.apiKeys[0].name: is empty (accepted: text)"),
        (
            {"auth": {"apiKeys": ["k"]}},
            "auth.apiKeys[0]: text does not fit here (accepted: an object with name, hash)",
        ),
        (
            {"runtime": {"kind": "podman"}},
            'runtime.kind: "podman" does not fit here (accepted: "compose" or "process")',
        ),
        (
            {"runtime": {"kind": ["compose"]}},
            'runtime.kind: a list does not fit here (accepted: "compose" or "process")',
        ),
        (
            {"runtime": "compose"},
            'runtime: "compose" does not fit here (accepted: an object whose kind is "compose" or "process")',
        ),
        ({"runtime": {"image": "x"}}, "runtime.image: there is no such option (accepted: kind)"),
        ({"runtime": {"command": ["x"]}}, 'runtime.kind: is missing (accepted: "process")'),
        (
            {"runtime": {"kind": "process", "command": []}},
            "runtime.command: is empty (accepted: a list, each item text)",
        ),
        (
            {"runtime": {"kind": "process", "command": ["x"], "env": {"PORT": 80}}},
            "runtime.env.PORT: a number does not fit here (accepted: text)",
        ),
    ],
)
def test_mistake_in_a_service(options: dict[str, Any], expected: str) -> None:
    assert expected in told_of_service(**options)


def test_list_whose_only_item_is_wrong_is_not_called_empty() -> None:
    runtime = {"kind": "process", "command": [5]}
    assert told({"services": {"a.b": {"proxyPort": 8001, "runtime": runtime}}}) == [
        "services.a.b.runtime.command[0]: a number does not fit here (accepted: text)"
    ]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("https://App.Example.org:8443", "https://app.example.org:8443"),
        ("safari-web-extension://1A2B-3C", "safari-web-extension://1A2B-3C"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("null", "null"),
    ],
)
def test_origin_is_kept_as_browsers_send_it(written: str, read: str) -> None:
    service = SERVICE | {"cors": {"origins": [written], "methods": ["get"]}}
    text = json.dumps({"services": {"a.b": service}})
    cors = config.parse(text, Path("config.json")).services["a.b"].cors
    assert cors is not None
    assert (cors.origins, cors.methods) == ((read,), ("GET",))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {},
            "services: is missing (accepted: an object: each key a host name without port, each value an object)",
        ),
        (
            {"services": {"a b": SERVICE}},
            'services.a b: "a b" is not a host name (accepted: a host name without port)',
        ),
        (
            {"services": {"": SERVICE}},
            'services.: "" is not a host name (accepted: a host name without port)',
        ),
        (
            {"services": {"a.b": SERVICE, "A.b.": SERVICE}},
            'services.A.b.: is the same host as "a.b" (accepted: each host once)',
        ),
        (
            {"services": {"a.b": {"proxyPort": 1}}},
            "services.a.b.composeDir: is missing (accepted: the absolute path of a docker-compose project)",
        ),
        (
            {"services": {"a.b": {"composeDir": "/x"}}},
            "services.a.b.proxyPort: is missing (accepted: a port number, 1 to 65535)",
        ),
        (
            {"services": {"a.b": PROCESS | {"containers": ["x"]}}},
            "services.a.b.containers: means nothing to the process runtime",
        ),
        (
            {"services": {"a.b": PROCESS | {"stopMethod": "pause"}}},
            'services.a.b.stopMethod: "pause" needs the compose runtime (accepted: "stop")',
        ),
        (
            {"services": {"a.b": SERVICE, "c.d": PROCESS | {"proxyPort": SERVICE["proxyPort"]}}},
            "services.c.d.proxyPort: 8001 is already the port of a.b (accepted: each port once)",
        ),
        (
            {"services": {"a.b": SERVICE, "c.d": SERVICE | {"proxyPort": 8002, "containers": ["x"]}}},
            "services.a.b.containers: is missing: c.d has the same composeDir (accepted: the containers of each service)",
        ),
        (
            {"services": {"a.b": SERVICE | {"proxyPort": 8890}}},
            "services.a.b.proxyPort: 8890 is already the port of autostart itself (accepted: each port once)",
        ),
        (
            {"services": {"a.b": SERVICE | {"aliases": ["x", "c.d"]}, "c.d": PROCESS}},
            'services.a.b.aliases[1]: "c.d" is already a name of c.d (accepted: each name once)',
        ),
        (
            {"services": {}, "listen": "127.0.0.1:80"},
            'listen: "127.0.0.1:80" does not fit here (accepted: a list, each item "127.0.0.1:8890", "[::1]:8890" or "unix:/path")',
        ),
        (
            {"services": {}, "listen": ["localhost:80"]},
            'listen[0]: "localhost:80" is not an address to listen on (accepted: "127.0.0.1:8890", "[::1]:8890" or "unix:/path")',
        ),
        (
            {"services": {}, "listen": ["::1:80"]},
            'listen[0]: "::1:80" is not an address to listen on (accepted: "127.0.0.1:8890", "[::1]:8890" or "unix:/path")',
        ),
        (
            {"services": {}, "admin": {"metrics": 9}},
            'admin.metrics: 9 is not an address to listen on (accepted: "127.0.0.1:8890", "[::1]:8890" or "unix:/path" or null)',
        ),
        (
            {"services": {}, "trustedProxies": ["10.0.0.1/8"]},
            'trustedProxies[0]: "10.0.0.1/8" is not an IP network (accepted: an IP network such as "10.0.0.0/8", or "unix")',
        ),
        (
            {"services": {}, "log": {"level": "loud"}},
            'log.level: "loud" does not fit here (accepted: "debug", "info", "warning" or "error")',
        ),
        ({"services": {}, "auth": "none"}, f"auth: text does not fit here (accepted: {AUTH})"),
        (
            {"services": {}, "servces": {}},
            (
                "servces: there is no such option; is services meant? (accepted: admin, auth, drainTimeout, headerTimeout, keepAliveTimeout, listen, log, "
                "services, spoolDir, spoolSize, stateFile, trustedProxies)"
            ),
        ),
    ],
)
def test_mistake_in_the_file(document: dict[str, Any], expected: str) -> None:
    assert [expected] == told(document)


@pytest.mark.parametrize("written", ["idle_timeout", "idletimeout", "IdleTimeout", "idleTimout"])
def test_misspelt_option_is_recognised(written: str) -> None:
    (problem,) = told_of_service(**{written: "5m"})
    assert problem.startswith(
        f"{written}: there is no such option; is idleTimeout meant? (accepted: aliases, auth, "
    )


def test_all_mistakes_are_told_at_once() -> None:
    document = {
        "services": {"a.b": SERVICE | {"idleTimeout": "x", "stopTimeout": "y"}, "c.d": {}},
        "drainTimeout": "z",
    }
    places = [problem.partition(": ")[0] for problem in told(document)]
    assert places == [
        "services.a.b.idleTimeout",
        "services.a.b.stopTimeout",
        "services.c.d.proxyPort",
        "drainTimeout",
    ]


def test_hosts_that_are_named_like_parts_of_the_models_keep_their_names() -> None:
    document = {
        "services": {name: {"proxyPort": "x"} for name in ("auth", "compose", "process", "object", "none")}
    }
    places = [problem.partition(": ")[0] for problem in told(document)]
    assert [f"services.{name}.proxyPort" for name in document["services"]] == places


@pytest.mark.parametrize(
    "options",
    [
        {"auth": "hunter2"},
        {"auth": {"apiKeys": ["hunter2"]}},
        {"auth": {"apiKeys": [{"name": "x", "hash": "hunter2"}]}},
        {"auth": {"apiKeys": "hunter2"}},
        {"auth": {"htpasswd": ["hunter2"]}},
        {"auth": {"htpasswd": "/x", "realm": {"x": "hunter2"}, "allow": "hunter2"}},
        {"runtime": {"kind": "process", "command": "serve --token hunter2"}},
        {"runtime": {"kind": "process", "command": ["x", {"a": "hunter2"}]}},
        {"runtime": {"kind": "process", "command": ["x"], "env": "hunter2"}},
        {"runtime": {"kind": "process", "command": ["x"], "env": {"TOKEN": ["hunter2"]}}},
    ],
)
def test_what_may_be_a_secret_is_never_repeated(options: dict[str, Any]) -> None:
    assert "hunter2" not in "".join(told_of_service(**options))


def test_secrets_are_not_in_the_repr_of_the_configuration() -> None:
    document = {
        "services": {"a.b": PROCESS | {"runtime": PROCESS["runtime"] | {"env": {"TOKEN": "hunter2"}}}},
        "auth": {"apiKeys": [{"name": "k", "hash": "sha256:" + "a" * 64}]},
    }
    text = repr(config.parse(json.dumps(document), Path("config.json")))
    assert "hunter2" not in text
    assert "a" * 64 not in text


def test_long_value_is_cut() -> None:
    (problem,) = told_of_service(idleTimeout="x" * 10_000)
    assert len(problem) < 200


def test_configuration_is_frozen() -> None:
    loaded = config.parse(json.dumps({"services": {"a.b": SERVICE}}), Path("config.json"))
    with pytest.raises(ValueError, match="frozen"):
        loaded.services["a.b"].proxy_port = 1  # type: ignore[misc]


@pytest.mark.parametrize("character", ["\0", "\ud800"], ids=["nul", "half-a-character"])
@pytest.mark.parametrize(
    "options",
    [
        lambda text: {"composeDir": f"/opt/{text}"},
        lambda text: {"aliases": [text]},
        lambda text: {"readiness": {"path": text}},
        lambda text: {"auth": {"htpasswd": text}},
        lambda text: {"runtime": {"kind": "process", "command": [text]}},
        lambda text: {text: 1},
        lambda text: {"runtime": {"kind": "process", "command": ["x"], "env": {text: "hunter2"}}},
    ],
    ids=["composeDir", "aliases", "readiness", "htpasswd", "command", "option", "env"],
)
def test_characters_that_no_path_and_no_terminal_takes_are_refused(options: Any, character: str) -> None:
    (problem,) = told_of_service(**options(f"a{character}b"))
    assert "holds a NUL or half a character" in problem
    assert problem.isprintable()
    assert "hunter2" not in problem


def test_realm_that_would_break_the_header_is_refused() -> None:
    auth = {"htpasswd": "/x", "realm": "one\r\nSet-Cookie: two"}
    expected = "auth.realm: holds a line break or another control character (accepted: text)"
    assert told_of_service(auth=auth) == [expected]


@pytest.mark.parametrize(
    ("options", "where", "address"),
    [
        ({"listen": ["127.0.0.1:1", "127.0.0.1:1"]}, "listen[1]", "127.0.0.1:1"),
        ({"listen": ["unix:/s"], "admin": {"socket": "/s"}}, "listen[0]", "unix:/s"),
        ({"admin": {"socket": "/s", "metrics": "unix:/s"}}, "admin.metrics", "unix:/s"),
        ({"listen": ["127.0.0.1:1"], "admin": {"metrics": "127.0.0.1:1"}}, "admin.metrics", "127.0.0.1:1"),
    ],
)
def test_address_of_our_own_given_twice_is_refused(options: Any, where: str, address: str) -> None:
    expected = f'{where}: "{address}" is already an address of autostart itself (accepted: each address once)'
    assert told({"services": {}} | options) == [expected]


def test_any_free_port_may_be_asked_for_twice() -> None:
    document = {"services": {}, "listen": ["127.0.0.1:0", "127.0.0.1:0"], "admin": {"metrics": "127.0.0.1:0"}}
    assert config.parse(json.dumps(document), Path("config.json")).listen == ("127.0.0.1:0",) * 2
