"""Both services on one box, behind the real gateway: each asleep while nobody asks for it. As `make demo-whisperx`."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
STORY = (
    "whisperx.localhost  stopped",
    "3. a real recording",
    "whisper.localhost   stopped",
    "whisperx.localhost  stopped",
    "5. a conversation (two-speakers.wav) is posted to the other service, which sleeps too",
    "[SPEAKER_00]: And Mr. John Dashwood",
    "[SPEAKER_01]: Eight of spades",
    "[SPEAKER_00]: He was not",
    "[SPEAKER_01]: Seven of",
    "[SPEAKER_00]: Unless to be",
    "the first service was not disturbed: it is still asleep",
    "whisperx.localhost  stopped",
    'autostart_starts_total{service="whisperx.localhost",result="succeeded"} 1',
    'autostart_stops_total{service="whisperx.localhost",reason="idle"} 1',
)


def test_gateway_wakes_the_one_that_is_asked_and_lets_the_other_sleep() -> None:
    # The gateway has an environment of its own, as on a server.
    gateway = os.environ.get("AUTOSTART_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
    command = [gateway, "-m", "autostart", "demo", "--whisperx", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    begin = 0
    for part in STORY:
        begin = done.stdout.find(part, begin)
        assert begin != -1, f"{part!r} does not come in its turn:\n{done.stdout}"
        begin += len(part)
