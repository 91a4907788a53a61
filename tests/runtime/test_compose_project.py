"""What a compose file says, read without Docker."""

from pathlib import Path

import pytest

from autostart.errors import ComposeDirMissing, ComposeFileInvalid
from autostart.runtime.compose import inspect_project
from autostart.runtime.compose.command import ComposeCommand
from autostart.runtime.compose.order import start_order, with_dependencies
from autostart.runtime.compose.project import Condition, Dependency, PublishedPort, read_project
from autostart.runtime.compose.variables import interpolate, read_env_file

NO_COMPOSE = ComposeCommand(candidates=[["no-such-compose"]])


def read(directory: Path, text: str, **environ: str):
    (directory / "docker-compose.yml").write_text(text)
    return read_project(directory, environ)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ('"8001:8000"', [PublishedPort("", 8001, 8000)]),
        ('"127.0.0.1:8001:8000/tcp"', [PublishedPort("127.0.0.1", 8001, 8000)]),
        ('"[::1]:8001:8000"', [PublishedPort("::1", 8001, 8000)]),
        ('"7000-7001:80-81"', [PublishedPort("", 7000, 80), PublishedPort("", 7001, 81)]),
        ('"8001:8000/udp"', []),
        ('"8000"', []),
        ("8000", []),
        ('{target: 8000, published: "8001", host_ip: 127.0.0.1}', [PublishedPort("127.0.0.1", 8001, 8000)]),
        ("{target: 8000, published: 8001, protocol: udp}", []),
        ("{target: 8000}", []),
    ],
)
def test_published_ports_are_read_in_every_spelling(tmp_path, entry, expected):
    project = read(tmp_path, f"services: {{web: {{image: x, ports: [{entry}]}}}}")
    assert list(project.services["web"].ports) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A-${A}", "1-1"),
        ("${NONE}", ""),
        ("${NONE:-two}", "two"),
        ("${EMPTY:-two}", "two"),
        ("${EMPTY-two}", ""),
        ("${A:+yes}${NONE:+yes}", "yes"),
        ("${NONE:-${A}}", "1"),
        ("$$A", "$A"),
        ("${DOLLAR}", "$A"),
        ("50 $ and ${", "50 $ and ${"),
    ],
)
def test_variables_are_filled_in_as_compose_does(text, expected):
    assert interpolate(text, {"A": "1", "EMPTY": "", "DOLLAR": "$A"}) == expected


def test_a_variable_that_must_be_set_is_named(tmp_path):
    with pytest.raises(ComposeFileInvalid, match="MODEL is not set: which model"):
        read(tmp_path, 'services: {web: {image: "x:${MODEL:?which model}"}}')


def test_an_env_file_is_read_with_quotes_comments_and_exports(tmp_path):
    path = tmp_path / ".env"
    path.write_text("# one\nA=1 # more\nexport B='two words'\nC=\"#3\"\nnonsense\nD=\n")
    assert read_env_file(path) == {"A": "1", "B": "two words", "C": "#3", "D": ""}


def test_the_environment_wins_over_the_env_file(tmp_path):
    (tmp_path / ".env").write_text("TAG=file\n")
    assert (
        read(tmp_path, 'services: {web: {image: "x:$TAG"}}', TAG="shell").services["web"].image == "x:shell"
    )


@pytest.mark.parametrize(
    ("name", "text", "environ", "expected"),
    [
        ("My_Stack.1", "", {}, "my_stack1"),
        ("x", "name: given\n", {}, "given"),
        ("x", "name: given\n", {"COMPOSE_PROJECT_NAME": "outer"}, "outer"),
    ],
)
def test_the_project_is_named_as_compose_names_it(tmp_path, name, text, environ, expected):
    directory = tmp_path / name
    directory.mkdir()
    assert read(directory, text + "services: {web: {image: x}}", **environ).name == expected


def test_containers_are_known_by_container_name_made_up_name_and_service(tmp_path):
    project = read(tmp_path, "name: p\nservices: {web: {image: x, container_name: front}, db: {image: x}}")
    assert {name: project.service_of(name) for name in ("front", "web", "p-db-1", "p_db_1", "db", "p-web-1")} == {
        "front": "web", "web": "web", "p-db-1": "db", "p_db_1": "db", "db": "db", "p-web-1": None,
    }  # fmt: skip


def test_an_override_file_is_laid_over(tmp_path):
    (tmp_path / "docker-compose.override.yml").write_text(
        'services: {web: {container_name: other, ports: ["8001:80"]}}'
    )
    web = read(tmp_path, 'services: {web: {image: x, container_name: web, ports: ["8000:80"]}}').services[
        "web"
    ]
    assert (web.image, web.container_name, [port.host_port for port in web.ports]) == (
        "x",
        "other",
        [8000, 8001],
    )


def test_the_files_that_the_env_file_names_are_read_instead(tmp_path):
    (tmp_path / ".env").write_text("COMPOSE_FILE=other.yml\n")
    (tmp_path / "other.yml").write_text("services: {other: {image: x}}")
    assert list(read(tmp_path, "services: {web: {image: x}}").services) == ["other"]


def test_profiles_and_scale_zero_are_not_expected_to_run(tmp_path):
    text = "services: {a: {image: x, profiles: [p]}, b: {image: x, scale: 0}, c: {image: x, deploy: {replicas: 2}}}"
    project = read(tmp_path, text)
    assert [s.name for s in project.services.values() if s.is_enabled] == ["c"]
    project = read(tmp_path, text, COMPOSE_PROFILES="p")
    assert [s.name for s in project.services.values() if s.is_enabled] == ["a", "c"]


def test_dependencies_are_read_in_every_spelling(tmp_path):
    project = read(
        tmp_path,
        """
        services:
          web:
            image: x
            depends_on: {db: {condition: service_healthy}, init: {condition: service_completed_successfully, required: false}}
            network_mode: "service:net"
            links: ["cache:redis"]
          api: {image: x, depends_on: [db]}
          db: {image: x}
          init: {image: x}
          net: {image: x}
          cache: {image: x}
        """,
    )
    assert project.services["web"].dependencies == {
        "db": Dependency(Condition.HEALTHY),
        "init": Dependency(Condition.COMPLETED, required=False),
        "net": Dependency(),
        "cache": Dependency(),
    }
    assert project.services["api"].dependencies == {"db": Dependency()}
    assert project.one_shots == {"init"}


def test_services_start_after_what_they_depend_on(tmp_path):
    project = read(
        tmp_path,
        "services: {a: {image: x, depends_on: [b, c]}, b: {image: x, depends_on: [c]}, c: {image: x}, d: {image: x}}",
    )
    assert [set(group) for group in start_order(project, set(project.services))] == [{"c", "d"}, {"b"}, {"a"}]
    assert list(start_order(project, ["a", "c"])) == [("c",), ("a",)]
    assert with_dependencies(project, ["b"]) == {"b", "c"}


def test_a_circle_of_dependencies_is_told(tmp_path):
    project = read(tmp_path, "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}")
    with pytest.raises(ComposeFileInvalid, match="wait for each other: a, b"):
        list(start_order(project, set(project.services)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services:\n  web:\n   - [", r"line \d"),
        ("- a list", "must be a mapping"),
        ("version: '3'", "no services"),
        ("services: {web: image}", "services.web must be a mapping"),
        ('services: {web: {image: x, ports: ["eighty:80"]}}', "services.web: .*eighty"),
        ("services: {web: {image: x, depends_on: [db]}}", "services.web depends on db, which is not there"),
        (
            "services: {web: {image: x, depends_on: {db: {condition: nice}}}, db: {image: x}}",
            "services.web: 'nice'",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path, text, said):
    with pytest.raises(ComposeFileInvalid, match=said) as caught:
        read(tmp_path, text)
    assert caught.value.path == tmp_path / "docker-compose.yml"


def test_a_change_of_any_of_its_files_changes_the_stamp(tmp_path):
    text = "services: {web: {image: x, env_file: [web.env]}}"
    stamps = {read(tmp_path, text).stamp}
    for name in (".env", "web.env", "compose.override.yml"):
        (tmp_path / name).write_text("services: {}" if name.endswith("yml") else "A=1\n")
        stamps.add(read(tmp_path, text).stamp)
    assert len(stamps) == 4


NAMES_OTHERS = {
    "include": "include: [sub/part.yml]\nservices: {web: {image: x}}",
    "long-include": "include: [{path: [sub/part.yml], project_directory: sub}]\nservices: {web: {image: x}}",
    "extends": "services: {web: {extends: {file: sub/part.yml, service: part}}}",
}


@pytest.mark.parametrize("text", NAMES_OTHERS.values(), ids=NAMES_OTHERS)
@pytest.mark.parametrize("edited", ["sub/part.yml", "sub/deep/base.yml", "sub/deep/base.env"])
def test_a_change_of_what_other_files_name_changes_the_stamp(tmp_path, text, edited):
    (tmp_path / "sub/deep").mkdir(parents=True)
    part = "services: {part: {extends: {file: deep/base.yml, service: base}}}"
    (tmp_path / "sub/part.yml").write_text(part)
    (tmp_path / "sub/deep/base.yml").write_text("services: {base: {image: x, env_file: [{path: base.env}]}}")
    before = read(tmp_path, text).stamp
    with (tmp_path / edited).open("a") as file:
        file.write("\n# edited\n")
    assert read(tmp_path, text).stamp != before


def test_files_that_include_each_other_and_those_that_cannot_be_read_are_watched_too(tmp_path):
    (tmp_path / "loop.yml").write_text("include: [docker-compose.yml, loop.yml, broken.yml, missing.yml]")
    (tmp_path / "broken.yml").write_text("include: [")
    watched = read(tmp_path, "include: [loop.yml, oci://nowhere/x]\nservices: {web: {image: x}}").watched
    assert {tmp_path / name for name in ("loop.yml", "broken.yml", "missing.yml")} <= set(watched)


def test_includes_and_extensions_are_left_to_compose(tmp_path):
    assert read(tmp_path, "include: [a.yml]\nservices: {web: {image: x}}").is_partial
    assert read(tmp_path, "services: {web: {extends: {file: a.yml, service: b}}}").is_partial
    assert not read(tmp_path, "services: {web: {image: x}}").is_partial


def test_the_check_needs_neither_engine_nor_compose(tmp_path):
    (tmp_path / "compose.yaml").write_text(
        """
        services:
          web: {image: x, container_name: whisper, ports: ["127.0.0.1:8001:8000"]}
          open: {image: x, ports: ["8002:8000"]}
        """
    )
    report = inspect_project(tmp_path, NO_COMPOSE)
    assert report.has_container("whisper")
    assert not report.has_container("whispr")
    assert report.containers[0] == "whisper"
    assert [port.container_port for port in report.published(8001)] == [8000]
    assert not report.is_published_to_the_world(8001)
    assert report.is_published_to_the_world(8002)
    assert "no-such-compose" in report.compose_said


def test_the_check_tells_a_missing_directory_and_a_missing_file_apart(tmp_path):
    with pytest.raises(ComposeDirMissing, match="no such directory"):
        inspect_project(tmp_path / "nowhere", NO_COMPOSE)
    with pytest.raises(ComposeDirMissing, match="no compose file"):
        inspect_project(tmp_path, NO_COMPOSE)
