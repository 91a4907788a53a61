"""How the locked packages are installed, with wheels made here: no package index is asked."""

import functools
import http.server
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[2] / "services" / "whisperx" / "install"
LOCK = "".join(
    f"{package} \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n"
    for package in ("torch==1.0", "torchaudio==1.1", "torchvision==1.2 ; sys_platform == 'linux'")
)


def wheel(directory, name, version):
    """A wheel with one module, which tells its version."""
    directory.mkdir(parents=True)
    record = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}/__init__.py", f"version = {version!r}\n")
        file.writestr(f"{name}/lib/none", "")
        file.writestr(f"{record}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{record}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{record}/RECORD", "")


@pytest.fixture
def index(tmp_path):
    """An index of packages with torch for the CPU; newer ones are there too."""
    root = tmp_path / "index"
    for name, version in (("torch", "1.0"), ("torchaudio", "1.1"), ("torchvision", "1.2")):
        wheel(root / name, name, f"{version}+cpu")
        wheel(root / name / "newer", name, "9.9+cpu")
        for file in (root / name / "newer").iterdir():
            file.rename(root / name / file.name)
    handler = functools.partial(Quiet, directory=root)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A directory is a list of links, as an index of packages is."""

    def log_message(self, *_):
        pass


@pytest.fixture
def environment(tmp_path):
    place = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    return place


def install(environment, variant, lock, **variables):
    return subprocess.run(
        [INSTALL, environment, variant, lock],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", **variables},
    )


def test_torch_comes_from_the_index_that_is_named_in_the_locks_versions(environment, index, tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK)
    done = install(environment, "cpu", lock, TORCH_INDEX_URL=index)
    assert (done.returncode, done.stdout) == (0, "without_cuda: 0 MB less\n"), done.stderr
    names = ("torch", "torchaudio", "torchvision")
    asked = f"import {', '.join(names)}; print({', '.join(f'{name}.version' for name in names)})"
    said = subprocess.run([environment / "bin/python", "-c", asked], capture_output=True, text=True).stdout
    assert said == "1.0+cpu 1.1+cpu 1.2+cpu\n"


def test_whatever_else_comes_from_there_is_not_taken(environment, index, tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK + f"torch-like==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    done = install(environment, "cpu", lock, TORCH_INDEX_URL=index, PIP_INDEX_URL=f"{index}none/")
    assert done.returncode != 0
    assert "torch-like" in done.stderr


def test_other_variant_is_refused(tmp_path):
    done = install(tmp_path, "rocm", tmp_path / "requirements.lock")
    assert (done.returncode, done.stderr) == (2, "VARIANT=rocm: accepted are cpu and cuda\n")
