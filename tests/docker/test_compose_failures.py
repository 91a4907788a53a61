"""Each way in which a compose project cannot start is its own error, with the facts."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from stacks import Stack

from autostart.errors import (
    CommandFailed,
    CommandNotFound,
    ComposeDirMissing,
    ComposeFileInvalid,
    ContainerUnknown,
    EngineUnreachable,
    Exited,
    ImageMissing,
    OutOfMemory,
    PortTaken,
    Unhealthy,
)
from autostart.runtime.base import StopMethod
from autostart.runtime.compose import ComposeCommand, ComposeRuntime, Engine

pytestmark = pytest.mark.docker

WEB = """
services:
  web:
    image: autostart-test/backend
    ports: ["127.0.0.1:{port}:8080"]
"""


def start(stack: Stack, *containers: str) -> None:
    async def main():
        async with stack.runtime(*containers) as watched:
            await watched.runtime.start()

    asyncio.run(main())


def test_a_missing_directory_is_named(stack):
    stack.directory = stack.directory / "nowhere"
    with pytest.raises(ComposeDirMissing, match="nowhere: there is no such directory"):
        start(stack)


def test_a_directory_without_a_compose_file_is_told_apart(stack):
    with pytest.raises(ComposeDirMissing, match="holds no compose file"):
        start(stack)


def test_a_file_that_does_not_parse_names_the_line(stack):
    stack.write("services:\n  web:\n    image: [\n")
    with pytest.raises(ComposeFileInvalid, match=r"line \d"):
        start(stack)


def test_a_file_that_compose_refuses_says_what_compose_says(new_stack, compose):
    stack = new_stack(compose).write(WEB + "    no_such_option: 1\n")
    with pytest.raises(ComposeFileInvalid, match="no_such_option"):
        start(stack)


def test_an_unknown_container_is_named_with_those_there_are(stack):
    stack.write(WEB + "    container_name: {name}-web\n")
    with pytest.raises(ContainerUnknown) as caught:
        start(stack, "wep")
    assert (caught.value.container, caught.value.known) == ("wep", (f"{stack.name}-web",))


def test_an_image_that_cannot_be_had_is_named(new_stack, compose):
    stack = new_stack(compose).write(WEB.replace("autostart-test/backend", "127.0.0.1:1/{name}:1"))
    with pytest.raises(ImageMissing) as caught:
        start(stack)
    assert caught.value.image == f"127.0.0.1:1/{stack.name}:1"
    assert caught.value.log_tail


def test_a_build_that_fails_shows_its_output(new_stack, compose):
    stack = new_stack(compose).write(WEB.replace("image: autostart-test/backend", "build: ."))
    (stack.directory / "Dockerfile").write_text("FROM autostart-test/backend\nCOPY nothing-here /\n")
    with pytest.raises(CommandFailed) as caught:
        start(stack)
    assert "nothing-here" in "\n".join(caught.value.log_tail)


def test_a_taken_port_is_named(stack):
    stack.write(WEB)
    with socket.socket() as other:
        other.bind(("127.0.0.1", stack.port))
        other.listen()
        with pytest.raises(PortTaken) as caught:
            start(stack)
    assert caught.value.port == stack.port


def test_a_port_taken_by_another_container_is_named(new_stack):
    first, second = new_stack().write(WEB), new_stack().write(WEB)
    second.port = first.port
    second.write(WEB)
    start(first)
    with pytest.raises(PortTaken) as caught:
        start(second)
    assert caught.value.port == first.port


def test_a_container_name_in_use_elsewhere_is_told_with_the_engines_words(new_stack, compose):
    first, second = new_stack(compose), new_stack(compose)
    first.write(WEB + f"    container_name: {first.name}-web\n")
    second.write(WEB + f"    container_name: {first.name}-web\n")
    start(first)
    with pytest.raises(CommandFailed, match="already in use"):
        start(second)


def test_a_program_that_is_not_in_the_image_is_named(stack):
    stack.write(WEB + '    command: ["/bin/nonsense"]\n')
    with pytest.raises(CommandNotFound, match="/bin/nonsense"):
        start(stack)


def test_a_failed_dependency_tells_its_exit_code_and_log(stack):
    stack.write(
        WEB
        + """
    depends_on: {migrate: {condition: service_completed_successfully}}
  migrate:
    image: autostart-test/backend
    environment: {LOG_LINE: "no such table", EXIT_CODE: "3"}
""",
    )
    with pytest.raises(Exited, match="migrate") as caught:
        start(stack)
    assert (caught.value.exit_code, caught.value.log_tail) == (3, ("no such table",))
    assert "web" not in [name for name, state in stack.states().items() if state == "running"]


def test_an_unhealthy_dependency_tells_what_its_check_said(stack):
    stack.write(
        WEB
        + """
    depends_on: {db: {condition: service_healthy}}
  db:
    image: autostart-test/backend
    environment: {HEALTH_DELAY_S: "3600"}
    healthcheck: {test: ["CMD", "/bin/health"], interval: 100ms, retries: 2}
""",
    )
    with pytest.raises(Unhealthy) as caught:
        start(stack)
    assert caught.value.output == "the model is still loading"


def test_what_ends_while_its_project_starts_tells_exit_code_and_log(stack):
    stack.write(
        """
        services:
          web:
            image: autostart-test/backend
            environment: {LOG_LINE: "cannot open /models", EXIT_CODE: "7"}
          late:
            image: autostart-test/backend
            depends_on: {web: {condition: service_completed_successfully}}
        """,
    )
    with pytest.raises(Exited) as caught:
        start(stack, "web", "late")
    assert (caught.value.exit_code, caught.value.log_tail) == (7, ("cannot open /models",))


def test_out_of_memory_during_the_start_is_told_as_such(stack):
    stack.write(
        """
        services:
          eater:
            image: autostart-test/backend
            mem_limit: 16m
            environment: {EAT_MEMORY: "1", LOG_LINE: "loading"}
          late:
            image: autostart-test/backend
            depends_on: {eater: {condition: service_completed_successfully}}
        """,
    )
    with pytest.raises(OutOfMemory, match="eater") as caught:
        start(stack)
    assert caught.value.log_tail == ("loading",)


def test_without_a_compose_command_the_error_says_what_to_install(stack):
    stack.write(WEB)
    stack.words = ("no-such-compose",)
    with pytest.raises(CommandNotFound) as caught:
        start(stack)
    assert "docker-compose" in caught.value.hint


def test_without_an_engine_everything_says_so_and_works_once_it_is_there(stack, tmp_path):
    stack.write(WEB)
    stack.compose("up", "--no-start")
    socket_path = tmp_path / "docker.sock"

    async def main():
        engine = Engine(f"unix://{socket_path}")
        runtime = ComposeRuntime(
            engine, ComposeCommand(engine.address, [stack.words]), stack.directory, [], stack.port
        )
        try:
            for call in (
                runtime.observe(),
                runtime.start(),
                runtime.stop(StopMethod.STOP, 1),
                runtime.log_tail(3),
            ):
                with pytest.raises(EngineUnreachable, match=str(socket_path)):
                    await call
            socket_path.symlink_to("/var/run/docker.sock")
            await runtime.start()
        finally:
            await engine.close()

    asyncio.run(main())
    assert stack.states() == {"web": "running"}


FORBIDDEN = """
import asyncio, os, sys
from pathlib import Path
from autostart.errors import EngineForbidden
from autostart.runtime.compose import ComposeCommand, ComposeRuntime, Engine

os.setgroups([]), os.setgid(65534), os.setuid(65534)
engine = Engine("unix://" + sys.argv[1])
runtime = ComposeRuntime(engine, ComposeCommand(), Path(sys.argv[2]), [], 1)
try:
    asyncio.run(runtime.observe())
except EngineForbidden as exc:
    print(exc)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without the right")
def test_a_socket_that_we_may_not_open_is_told_apart(tmp_path):
    directory = Path("/tmp") / f"autostart-forbidden-{os.getpid()}"
    directory.mkdir(mode=0o755)
    try:
        (directory / "compose.yaml").write_text("services: {web: {image: x}}\n")
        locked = directory / "docker.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(locked))
            listener.listen()
            locked.chmod(0o600)
            done = subprocess.run(
                [sys.executable, "-c", dedent(FORBIDDEN), str(locked), str(directory)],
                capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2],
            )  # fmt: skip
        assert done.stdout.strip() == f"no right to use the Docker engine at unix://{locked}", done.stderr
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
