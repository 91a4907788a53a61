"""What tests with a real Docker engine lean on: a compose command, the test image, projects of their own."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from stacks import COMPOSE, WEB, Stack, any_compose, is_installed


@pytest.fixture(scope="session")
def client() -> Iterator[docker.APIClient]:
    client = docker.APIClient(version="auto", **docker.utils.kwargs_from_env())
    yield client
    client.close()


@pytest.fixture(scope="session", params=["v2", "v1"])
def compose(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The words of a compose command that is installed; a test that asks for it runs with each."""
    words = COMPOSE[request.param]
    if not is_installed(words):
        if os.environ.get(f"AUTOSTART_REQUIRE_COMPOSE_{request.param.upper()}") == "1":
            pytest.fail(f"`{' '.join(words)}` is required and not installed", pytrace=False)
        pytest.skip(f"`{' '.join(words)}` is not installed")
    return words


@pytest.fixture
def new_stack(tmp_path: Path, client: docker.APIClient) -> Iterator[Callable[..., Stack]]:
    """Make stacks; each is removed at the end of the test, whatever became of it."""
    made: list[Stack] = []

    def make(words: tuple[str, ...] | None = None) -> Stack:
        stack = Stack(tmp_path, client, words or any_compose())
        stack.directory = tmp_path / stack.name
        stack.directory.mkdir()
        made.append(stack)
        return stack

    yield make
    for stack in made:
        stack.remove()


@pytest.fixture
def stack(new_stack: Callable[..., Stack]) -> Stack:
    return new_stack()


@pytest.fixture
def web(stack: Stack) -> Stack:
    """A project of one container."""
    return stack.write(WEB)
