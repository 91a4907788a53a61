"""pyannote's pipeline and the hub that it comes from: what is refused, what is missing, and what is in the cache."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from whisperx_server.speakers.pyannote import MODEL

TOKEN = "hf_thisIsSecret"
ASK = """
import json, sys
from pathlib import Path
from speech_common.errors import DiarizationUnavailable
from whisperx_server.speakers.pyannote import Pyannote
token, model_dir, downloads = sys.argv[1:]
model_dir = Path(model_dir) if model_dir else None
reason = None
try:
    Pyannote(token=token, model_dir=model_dir, device="cpu", downloads_allowed=downloads != "none").load()
except DiarizationUnavailable as exc:
    reason = exc.reason
print(json.dumps(reason))
"""


@pytest.fixture
def hub():
    """A hub that answers as its `status` and `headers` say."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append((self.path, self.headers.get("authorization")))
            self.send_response(self.server.status)
            for name, value in {"content-length": "0", **self.server.error}.items():
                self.send_header(name, value)
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 -- the library's name

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.status, server.error = [], 401, {}
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def asked(hub_url, tmp_path, token=TOKEN, model_dir="", downloads="sizes"):
    """Load it in a process of its own, as the hub's client reads its variables once.

    Returns the reason why it could not be had, if it could not, and all output.
    """
    variables = {"HF_ENDPOINT": hub_url, "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", ASK, token, str(model_dir), downloads],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1]), run.stdout + run.stderr


def url(hub):
    return "http://{}:{}".format(*hub.server_address)


@pytest.mark.parametrize(
    ("status", "error", "wanted"),
    [
        (401, {"x-error-message": "Invalid credentials in Authorization header"}, "refused the token"),
        (401, {"x-error-code": "GatedRepo"}, "refused the token"),
        (403, {"x-error-code": "GatedRepo"}, "not accepted"),
        (503, {}, "could not be had"),
    ],
)
def test_what_the_hub_says_is_told_with_what_to_do(hub, tmp_path, status, error, wanted):
    hub.status, hub.error = status, error
    reason, output = asked(url(hub), tmp_path)
    assert wanted in reason
    assert MODEL in reason
    assert ("HF_TOKEN" in reason) == (status in (401, 403))
    assert hub.asked[0] == (f"/{MODEL}/resolve/main/config.yaml", f"Bearer {TOKEN}")
    assert TOKEN not in output


def test_no_network_is_told_with_what_to_do(tmp_path):
    reason, output = asked("http://127.0.0.1:1", tmp_path)
    assert "DIARIZATION_MODEL" in reason
    assert TOKEN not in output


def cached(directory, mirrored, names):
    """Lay parts of a pipeline into a hub's cache as its client does."""
    repository = directory / "hub" / f"models--{MODEL.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    for name in names:
        (snapshot / name).symlink_to(mirrored / name)


@pytest.mark.parametrize("token", [TOKEN, ""])
def test_without_downloads_the_hub_is_not_asked_and_what_is_missing_is_told(hub, tmp_path, token):
    reason, output = asked(url(hub), tmp_path, token, downloads="none")
    assert reason.startswith(f"config.yaml of {MODEL} is not in the cache at {tmp_path / 'hub'}")
    assert "WHISPER_DOWNLOADS=none" in reason
    assert "DIARIZATION_MODEL" in reason
    assert output.count("\n") == 1
    assert hub.asked == []


@pytest.mark.parametrize("token", [TOKEN, ""])
def test_without_downloads_what_is_in_the_cache_is_loaded(hub, mirrored, tmp_path, token):
    cached(tmp_path, mirrored, ["config.yaml", "segmentation", "embedding", "plda"])
    reason, _ = asked(url(hub), tmp_path, token, downloads="none")
    assert reason is None
    assert hub.asked == []


def test_without_downloads_half_a_cache_is_told_by_what_is_missing(hub, mirrored, tmp_path):
    cached(tmp_path, mirrored, ["config.yaml", "segmentation"])
    reason, output = asked(url(hub), tmp_path, downloads="none")
    assert f" of {MODEL} is not in the cache" in reason
    assert reason.startswith(("plda/", "embedding/"))
    assert "visit https" not in output
    assert hub.asked == []


def test_without_downloads_a_copy_that_names_another_repository_does_not_ask_for_it(hub, mirrored, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("embedding", "plda"):
        (copy / name).symlink_to(mirrored / name)
    config = (mirrored / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("$model/segmentation", "owner/segmentation"))
    reason, _ = asked(url(hub), tmp_path, model_dir=copy, downloads="none")
    assert "of owner/segmentation is not in the cache" in reason
    assert hub.asked == []
