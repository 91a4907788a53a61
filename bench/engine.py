"""A Docker engine for measurements: projects of their own, and a socket that notes when containers are started.

The recorder stands between the gateway and the engine, so that of every single wake it is known what the
engine's own start took; what it adds itself (some 0.1 ms a call) counts against the gateway.
"""

import contextlib
import json
import selectors
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException
from docker.utils import kwargs_from_env

from bench.stand import Failed, Missing, free_port, wait_until

BACKEND_IMAGE = "autostart-test/backend"
SPEECH_IMAGE = "autostart-test/faster-whisper"
_BUILD = {BACKEND_IMAGE: ".ci/images backend", SPEECH_IMAGE: ".ci/images speech"}
_PIECE_BYTES = 2**16


def connect(image: str) -> docker.APIClient:
    """Return a client of the engine. Raises Missing where none answers or `image` is not there."""
    try:
        client = docker.APIClient(version="auto", timeout=60, **kwargs_from_env())
    except DockerException as exc:
        raise Missing("no Docker engine answers") from exc
    if not client.images(image):
        client.close()
        raise Missing(f"there is no image {image}; `{_BUILD[image]}` builds it")
    return client


class Project:
    """A compose project with one service, whose container is removed in the end."""

    def __init__(
        self, client: docker.APIClient, directory: Path, service: Mapping[str, Any], inside: int
    ) -> None:
        self.client, self.directory, self.inside = client, directory, inside
        self.name = f"asbench{uuid.uuid4().hex[:8]}"
        self.port = free_port()
        ports = [f"127.0.0.1:{self.port}:{inside}"]
        own = {"container_name": self.name, "restart": "no", "ports": ports, **service}
        # JSON is YAML; the project's name is that of its directory.
        file = {"version": "2.4", "services": {"web": own}}
        self.place = directory / self.name
        self.place.mkdir()
        (self.place / "docker-compose.yml").write_text(json.dumps(file))

    @contextlib.contextmanager
    def existing(self) -> Iterator["Project"]:
        """Remove what there is of it after the body of the `with`."""
        try:
            yield self
        finally:
            label = {"label": f"com.docker.compose.project={self.name}"}
            for found in self.client.containers(all=True, filters=label):
                self.client.remove_container(found["Id"], force=True, v=True)
            for network in self.client.networks(filters=label):
                self.client.remove_network(network["Id"])

    def config(self, **options: Any) -> dict[str, Any]:
        """Return the service's configuration; it is put to sleep only by hand."""
        return {
            "proxyPort": self.port,
            "composeDir": str(self.place),
            "containers": [self.name],
            "idleTimeout": "never",
            "stopTimeout": "5s",
            **options,
        }

    def address(self) -> str:
        """Return the running container's own address."""
        networks = self.client.inspect_container(self.name)["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def wait_until_stopped(self) -> None:
        """Wait until the engine says that it does not run."""
        wait_until(
            lambda: not self.client.inspect_container(self.name)["State"]["Running"],
            f"the end of {self.name}",
        )


class Recorder:
    """A unix socket that passes everything on to the engine, and notes the time of each start of a container, or thaw."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix://{path}"
        self._path = path
        # Where the engine is, as DOCKER_HOST says or its default.
        target = kwargs_from_env().get("base_url", "unix:///var/run/docker.sock")
        if not target.startswith(("unix://", "http+unix://")):
            raise Missing("an engine behind a unix socket")
        self._target = "/" + target.split("://", 1)[1].lstrip("/")
        self.starts: list[tuple[float, float]] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator["Recorder"]:
        """Serve for the body of the `with`."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        listener.listen(64)
        thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        thread.start()
        # A thread must not wait for the interpreter longer than it takes to pass a call on.
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(0.0005)
        try:
            yield self
        finally:
            sys.setswitchinterval(interval_s)
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(1)

    def last_start(self) -> tuple[float, float]:
        """Return when the last start of a container was asked for, and when it returned. Raises Failed."""
        if not self.starts:
            raise Failed("no container was started through the recorder")
        return self.starts[-1]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        asked_s: float | None = None
        with client, socket.socket(socket.AF_UNIX) as engine, selectors.DefaultSelector() as ready:
            engine.connect(self._target)
            ready.register(client, selectors.EVENT_READ, engine)
            ready.register(engine, selectors.EVENT_READ, client)
            while ready.get_map():
                for key, _ in ready.select():
                    source: Any = key.fileobj
                    try:
                        data = source.recv(_PIECE_BYTES)
                        now = time.monotonic()
                        if data and not (source is client and self._answers(data, client)):
                            key.data.sendall(data)
                    except OSError:
                        return
                    if not data:
                        ready.unregister(source)
                        with contextlib.suppress(OSError):
                            key.data.shutdown(socket.SHUT_WR)
                        if source is engine:
                            return
                    elif source is client and _is_start(data):
                        asked_s = now
                    elif source is engine and asked_s is not None:
                        self.starts.append((asked_s, now))
                        asked_s = None

    def _answers(self, data: bytes, client: socket.socket) -> bool:  # noqa: ARG002 - for those who pretend
        """Say whether a request was answered here, and has not to be passed on."""
        return False


def _is_start(data: bytes) -> bool:
    line = data[:300].partition(b"\r\n")[0]
    return (
        line.startswith(b"POST ")
        and b"/containers/" in line
        and line.split(b" ")[1].endswith((b"/start", b"/unpause"))
    )
