"""A Docker engine of a test's own, that may be stopped, killed and started again: the machine's own never is."""

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import docker
from stacks import BACKEND, build_backend
from waiting import LIMIT_S, block_until

NEEDS = "only root can run an engine of its own"


class OwnEngine:
    """A dockerd with its own socket, data and bridge; containers outlive it with `live_restore`.

    Its directory has a short name, for the paths of sockets may have no more than 107 bytes. Its bridge is a network of the machine's engine: `--bridge=none` would have it remove docker0, which is not its own.
    """

    def __init__(self, *, live_restore: bool) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="as-engine-"))
        self.socket = self._directory / "docker.sock"
        self.address = f"unix://{self.socket}"
        self.log = self._directory / "log"
        self.client: docker.APIClient
        self._options = ["--live-restore"] if live_restore else []
        self._process: subprocess.Popen[bytes] | None = None
        self._left = ExitStack()

    def __enter__(self) -> Self:
        self._left.callback(self._remove_directory)
        name = f"as{uuid.uuid4().hex[:10]}"
        bridge = f"com.docker.network.bridge.name={name}"
        (self._directory / "daemon.json").write_text("{}")
        build_backend()
        self._by_hand("network", "create", "--opt", bridge, name)
        self._left.callback(self._by_hand, "network", "rm", name)
        self._options += ["--bridge", name]
        with self._left.pop_all() as left:
            left.callback(self.stop)
            self.start()
            left.callback(self._remove_containers)
            with subprocess.Popen(["docker", "save", BACKEND], stdout=subprocess.PIPE) as saved:
                load = ["docker", "--host", self.address, "load"]
                subprocess.run(load, stdin=saved.stdout, check=True, capture_output=True)
            self._left = left.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            self.start()
        self._left.close()

    def start(self) -> None:
        """Start it and wait until it answers."""
        for pid_file in self._directory.rglob("*.pid"):
            pid_file.unlink()  # of one that was killed, whose number may be in use again
        paths = {
            "--data-root": "data",
            "--exec-root": "exec",
            "--pidfile": "docker.pid",
            "--config-file": "daemon.json",
        }
        words = [f"{option}={self._directory / path}" for option, path in paths.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "dockerd", "--host", self.address, "--iptables=false", "--ip6tables=false", "--ip-forward=false",
                 *words, *self._options],
                stdout=log, stderr=log,
            )  # fmt: skip
        block_until(self._answers, self.log.read_text)
        self.client = docker.APIClient(self.address, version="auto")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        version = ["docker", "--host", self.address, "version"]
        return subprocess.run(version, capture_output=True, check=False).returncode == 0

    def stop(self) -> None:
        """End it in order: containers too, but with `live_restore`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; containers go on until it is back."""
        self._end(signal.SIGKILL)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it take connections and answer nobody, for the body of the `with`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(LIMIT_S)
            self._process = None
            self.client.close()

    def _remove_containers(self) -> None:
        for item in self.client.containers(all=True):
            self.client.remove_container(item["Id"], force=True)

    def _remove_directory(self) -> None:
        mounts = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
        for mount in [path for path in mounts if path.startswith(f"{self._directory}/")]:
            subprocess.run(["umount", "--lazy", mount], check=True)  # what a killed engine has left
        shutil.rmtree(self._directory)

    @staticmethod
    def _by_hand(*words: str) -> None:
        own = {key: value for key, value in os.environ.items() if key != "DOCKER_HOST"}
        subprocess.run(["docker", *words], check=True, capture_output=True, env=own)
