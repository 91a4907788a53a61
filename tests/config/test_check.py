"""`autostart check`: the configuration against real files, programs, compose projects and the engine."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from autostart.auth import generate_key, hash_key
from autostart.check import Report, check
from autostart.runtime.compose import Engine

KEY = {"name": "robot", "hash": hash_key(generate_key())}
COMPOSE = (
    "services:\n  web:\n    image: example\n    container_name: web-1\n    ports: ['127.0.0.1:8001:80']\n"
)


def checked(directory: Path, document: dict[str, Any], engine: Engine | None = None) -> Report:
    """Check `document` as a file in `directory`, on a machine whose own directories are in order."""
    path = directory / "config.json"
    own = {"spoolDir": str(directory), "stateFile": "state.json", "admin": {"socket": "admin.sock"}}
    path.write_text(json.dumps(own | document))
    return asyncio.run(check(path, engine))


def told(report: Report) -> tuple[list[str], list[str]]:
    return [str(problem) for problem in report.errors], [str(problem) for problem in report.warnings]


def process(**options: Any) -> dict[str, Any]:
    return {
        "services": {
            "a.b": {"proxyPort": 8001, "runtime": {"kind": "process", "command": ["true"]}} | options
        }
    }


# --- the report -------------------------------------------------------------------------------------


def test_what_is_in_order_is_told_as_nothing(tmp_path: Path) -> None:
    report = checked(tmp_path, process())
    assert (report.lines(), report.exit_code) == ([], 0)


def test_busy_check_that_can_never_say_anything_is_a_warning(tmp_path: Path) -> None:
    errors, warnings = told(checked(tmp_path, process(busyCpuPercent=1e6)))
    assert errors == []
    assert [warning.partition(": all")[0] for warning in warnings] == [
        "services.a.b.busyCpuPercent: it can never be above 1e+06"
    ]
    never = process(busyPath="/busy", busyCpuPercent=20, idleTimeout="never")
    assert told(checked(tmp_path, never))[1] == [
        f'services.a.b.{option}: means nothing where idleTimeout is "never"'
        for option in ("busyPath", "busyCpuPercent")
    ]


def test_mistakes_of_the_file_are_told_alone(tmp_path: Path) -> None:
    report = checked(tmp_path, process(blocking="yes") | {"spoolDir": "/nowhere"})
    expected = (
        f'{tmp_path}/config.json: services.a.b.blocking: "yes" does not fit here (accepted: true or false)'
    )
    assert ([expected], 2) == (report.lines(), report.exit_code)


def test_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    report = asyncio.run(check(tmp_path / "config.json"))
    assert [f"{tmp_path}/config.json: cannot be read: No such file or directory"] == report.lines()
    assert report.exit_code == 2


def test_warnings_alone_leave_the_exit_code_zero(tmp_path: Path) -> None:
    report = checked(tmp_path, process() | {"listen": ["0.0.0.0:8890"]})
    (line,) = report.lines()
    assert line.startswith(
        f"{tmp_path}/config.json: warning: services.a.b.auth: whoever reaches 0.0.0.0:8890 may use it"
    )
    assert report.exit_code == 0


# --- autostart itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1:8890", "[::1]:8890", "unix:{}/http.sock"])
def test_service_without_auth_is_fine_where_only_this_machine_reaches_it(
    tmp_path: Path, address: str
) -> None:
    assert checked(tmp_path, process() | {"listen": [address.format(tmp_path)]}).lines() == []


@pytest.mark.parametrize("auth", [{"auth": {"apiKeys": [KEY]}}, None])
def test_service_with_auth_is_fine_on_every_address(tmp_path: Path, auth: Any) -> None:
    document = (
        process(**(auth or {})) | ({} if auth else {"auth": {"apiKeys": [KEY]}}) | {"listen": ["[::]:8890"]}
    )
    assert checked(tmp_path, document).lines() == []


def test_metrics_for_the_world_are_warned_of(tmp_path: Path) -> None:
    report = checked(tmp_path, process() | {"admin": {"socket": "admin.sock", "metrics": "0.0.0.0:8891"}})
    assert [problem.where for problem in report.warnings] == ["admin.metrics"]


def test_spool_directory_must_be_there(tmp_path: Path) -> None:
    errors, _ = told(checked(tmp_path, process() | {"spoolDir": "/nowhere"}))
    assert errors == ["spoolDir: /nowhere is not a directory (accepted: a directory for waiting uploads)"]


def test_spool_directory_must_be_writable(tmp_path: Path) -> None:
    spool = Path("/proc/self")  # where root may not write either
    errors, _ = told(checked(tmp_path, process() | {"spoolDir": str(spool)}))
    assert [
        f"spoolDir: {spool} is not writable for this user (accepted: a directory for waiting uploads)"
    ] == errors


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"admin": {"socket": f"/{'x' * 107}"}}, "admin.socket"),
        ({"listen": ["127.0.0.1:8890", f"unix:/{'x' * 107}"]}, "listen[1]"),
        ({"admin": {"socket": "admin.sock", "metrics": f"unix:/{'x' * 107}"}}, "admin.metrics"),
    ],
    ids=["admin.socket", "listen", "admin.metrics"],
)
def test_path_that_no_socket_can_have_is_an_error(
    tmp_path: Path, options: dict[str, Any], where: str
) -> None:
    errors, _ = told(checked(tmp_path, process() | options))
    assert errors == [f"{where}: the path is too long for a socket, 108 bytes (accepted: at most 107 bytes)"]


def test_state_file_that_is_a_directory_is_an_error(tmp_path: Path) -> None:
    errors, _ = told(checked(tmp_path, process() | {"stateFile": str(tmp_path)}))
    assert errors == [f"stateFile: {tmp_path} is a directory (accepted: a file, or null for nowhere)"]


def test_directories_that_systemd_makes_are_only_warned_of(tmp_path: Path) -> None:
    document = {
        "admin": {"socket": "run/admin.sock"},
        "stateFile": "lib/state.json",
        "listen": ["unix:/nowhere/http"],
    }
    report = checked(tmp_path, process() | document)
    assert (
        report.errors,
        [problem.where for problem in report.warnings],
    ) == ((), ["admin.socket", "listen[0]", "stateFile"])


# --- auth -------------------------------------------------------------------------------------------


def test_htpasswd_is_read_and_its_mistakes_are_told_without_hashes(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("alice:{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI=\nbob:hunter2\n")
    document = process(auth={"htpasswd": "users"}) | {"auth": {"htpasswd": "missing"}}
    errors, warnings = told(checked(tmp_path, document))
    ways = "(accepted: bcrypt (`htpasswd -B`), apr1 (`htpasswd -m`) or {SHA} (`htpasswd -s`))"
    assert [
        f"auth.htpasswd: {tmp_path}/missing: cannot be read: No such file or directory (accepted: a file of lines user:hash)",
        (
            f"services.a.b.auth.htpasswd: {tmp_path}/users line 2, user 'bob': the password is stored as plain text, crypt "
            f"or in another way that is not supported {ways}"
        ),
    ] == errors
    assert warnings == []


def test_allowed_name_that_nobody_has_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("alice:{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI=\n")
    auth = {"htpasswd": "users", "apiKeys": [KEY], "allow": ["alice", "robot", "alcie"]}
    _, warnings = told(checked(tmp_path, process(auth=auth)))
    assert warnings == [
        "services.a.b.auth.allow[2]: nobody is called 'alcie' (accepted: a user of htpasswd or a name in apiKeys)"
    ]


# --- processes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ({"command": ["sh"]}, []),
        ({"command": ["/bin/sh"]}, []),
        ({"command": ["./serve"], "cwd": "place"}, []),
        ({"command": ["serve"], "env": {"PATH": "{}/place"}}, []),
        (
            {"command": ["no-such-program"]},
            [
                (
                    "services.a.b.runtime.command: there is no program 'no-such-program' on the PATH "
                    "(accepted: a program on the PATH, or its absolute path)"
                )
            ],
        ),
        (
            {"command": ["./serve"]},
            [
                (
                    "services.a.b.runtime.command: there is no program {}/serve "
                    "(accepted: a program on the PATH, or its absolute path)"
                )
            ],
        ),
        (
            {"command": ["place/notes.txt"]},
            [
                (
                    "services.a.b.runtime.command: {}/place/notes.txt is not executable for this user "
                    "(accepted: an executable file)"
                )
            ],
        ),
        (
            {"command": ["sh"], "cwd": "nowhere"},
            [
                "services.a.b.runtime.cwd: {}/nowhere is not a directory (accepted: the directory to run the program in)"
            ],
        ),
    ],
)
def test_program_must_be_there(tmp_path: Path, runtime: dict[str, Any], expected: list[str]) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "notes.txt").touch(mode=0o644)
    (place / "serve").touch(mode=0o755)
    placed = json.loads(json.dumps(runtime).replace("{}/", f"{tmp_path}/"))
    errors, _ = told(checked(tmp_path, process(runtime={"kind": "process"} | placed)))
    assert [text.replace("{}", str(tmp_path)) for text in expected] == errors


# --- compose projects -------------------------------------------------------------------------------


def checked_project(tmp_path: Path, compose: str | None, **options: Any) -> tuple[list[str], list[str]]:
    """Check one service on `compose`; what the machine's engine and compose command say is left out."""
    directory = tmp_path / "project"
    if compose is not None:
        directory.mkdir()
        (directory / "compose.yaml").write_text(compose)
    service = {"composeDir": str(directory), "proxyPort": 8001} | options
    errors, warnings = told(checked(tmp_path, {"services": {"a.b": service}}))
    return (
        [text.replace(f"{directory}", "DIR") for text in errors if text.startswith("services")],
        [text for text in warnings if "compose could not be asked" not in text],
    )


def test_project_in_order(tmp_path: Path) -> None:
    assert checked_project(tmp_path, COMPOSE, containers=["web-1"]) == ([], [])


def test_compose_directory_must_be_there(tmp_path: Path) -> None:
    errors, _ = checked_project(tmp_path, None)
    assert errors == [
        (
            "services.a.b.composeDir: compose directory DIR: there is no such directory; "
            "correct composeDir in the configuration"
        )
    ]


def test_compose_file_must_parse(tmp_path: Path) -> None:
    (error,), _ = checked_project(tmp_path, "services: [")
    assert error.startswith("services.a.b.composeDir: compose file DIR/compose.yaml is not usable: line ")


def test_container_names_must_be_in_the_compose_file(tmp_path: Path) -> None:
    errors, _ = checked_project(tmp_path, COMPOSE, containers=["web-1", "wbe"])
    assert errors == ["services.a.b.containers[1]: the compose file has no container 'wbe' (accepted: web-1)"]


def test_port_must_be_published(tmp_path: Path) -> None:
    errors, _ = checked_project(tmp_path, COMPOSE, proxyPort=8002)
    assert errors == ["services.a.b.proxyPort: no container of DIR publishes the port 8002 (accepted: 8001)"]


def test_port_of_a_project_that_publishes_none(tmp_path: Path) -> None:
    errors, _ = checked_project(tmp_path, "services:\n  web:\n    image: example\n")
    assert errors == [
        'services.a.b.proxyPort: no container of DIR publishes the port 8001 (accepted: ports: ["127.0.0.1:8001:…"])'
    ]


@pytest.mark.parametrize(
    "compose",
    [
        "services:\n  web:\n    image: example\n    network_mode: host\n",
        "x-a: &a\n  network_mode: host\nservices:\n  web:\n    <<: *a\n    image: example\n",
    ],
)
def test_port_need_not_be_published_on_the_host_network(tmp_path: Path, compose: str) -> None:
    assert checked_project(tmp_path, compose) == ([], [])


def test_port_need_not_be_found_where_only_compose_could_have_read_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base.yaml").write_text("services:\n  base:\n    image: example\n    network_mode: host\n")
    extended = f"services:\n  web:\n    extends: {{file: {tmp_path}/base.yaml, service: base}}\n"
    monkeypatch.setenv("PATH", "/nowhere")
    errors, _ = checked_project(tmp_path, extended)
    assert errors == []


@pytest.mark.parametrize("ports", ["8001:80", "0.0.0.0:8001:80", "[::]:8001:80"])
def test_port_published_to_the_world_is_warned_of(tmp_path: Path, ports: str) -> None:
    errors, warnings = checked_project(tmp_path, COMPOSE.replace("127.0.0.1:8001:80", ports))
    assert (errors, warnings) == (
        [],
        [
            (
                "services.a.b.proxyPort: the port 8001 is published to the whole network, past autostart and its "
                'authentication (accepted: ports: ["127.0.0.1:8001:80"] in the compose file)'
            )
        ],
    )


def test_engine_that_does_not_answer_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    services = {
        f"{name}.b": {"composeDir": str(tmp_path), "proxyPort": 8001, "containers": ["web-1"]}
        for name in ("a", "c")
    }
    services["c.b"] |= {"composeDir": str(tmp_path / "other"), "proxyPort": 8002}
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and never listens
        engine = Engine(f"tcp://127.0.0.1:{deaf.getsockname()[1]}")
        errors, _ = told(checked(tmp_path, {"services": services}, engine))
    assert sum("no Docker engine answers at" in error for error in errors) == 1


def test_engine_is_not_asked_where_no_service_needs_it(tmp_path: Path) -> None:
    engine = Engine(f"unix://{tmp_path}/nothing.sock")
    assert checked(tmp_path, process(), engine).lines() == []


@pytest.mark.docker
def test_engine_that_answers_is_fine(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    report = checked(tmp_path, {"services": {"a.b": {"composeDir": str(tmp_path), "proxyPort": 8001}}})
    assert report.errors == ()


# --- what this user may not look at -----------------------------------------------------------------

# A name of more than 255 bytes fails in `stat`, as a directory of somebody else's does, for root too.
UNSEEN = "/" + "x" * 300 + "/y"


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"spoolDir": UNSEEN}, "spoolDir"),
        (
            process(runtime={"kind": "process", "command": ["true"], "cwd": UNSEEN}),
            "services.a.b.runtime.cwd",
        ),
        (process(runtime={"kind": "process", "command": [UNSEEN]}), "services.a.b.runtime.command"),
        ({"services": {"a.b": {"proxyPort": 8001, "composeDir": UNSEEN}}}, "services.a.b.composeDir"),
    ],
    ids=["spoolDir", "cwd", "command", "composeDir"],
)
def test_place_that_cannot_be_looked_at_is_an_error_and_no_traceback(
    tmp_path: Path, options: dict[str, Any], where: str
) -> None:
    errors, _ = told(checked(tmp_path, {"services": {}} | options))
    assert any(error.startswith(f"{where}: ") for error in errors)


def test_place_of_a_file_that_cannot_be_looked_at_is_a_warning(tmp_path: Path) -> None:
    errors, warnings = told(checked(tmp_path, process() | {"stateFile": UNSEEN}))
    assert (errors, len(warnings)) == ([], 1)
