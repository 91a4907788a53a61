"""`make demo`, as a person sees it: the real gateway, the real speech server, a real model and recording."""

import os
import subprocess
import sys

import pytest

SAID = "Unless to be rather cold-hearted and rather selfish is to be ill-disposed."
STORY = (
    "1. `autostart serve` runs; the speech service is asleep",
    "stopped",
    "2. a request without credentials is refused, and wakes nothing",
    "HTTP 401",
    "the service is still asleep",
    "3. a real recording",
    f"heard:    {SAID}",
    "started after",
    f"heard:    {SAID}",
    "4. nobody comes for 3 s, and the service falls asleep",
    "gone: ",
    "5. what Prometheus sees of all this",
    'autostart_starts_total{service="whisper.localhost",result="succeeded"} 1',
    'autostart_stops_total{service="whisper.localhost",reason="idle"} 1',
)


def play(runtime: str, **environment: str) -> str:
    command = [sys.executable, "-m", "autostart", "demo", "--runtime", runtime]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_tells(story: str) -> None:
    begin = 0
    for part in STORY:
        begin = story.find(part, begin)
        assert begin != -1, f"{part!r} does not come in its turn:\n{story}"
        begin += len(part)


def test_demo_with_a_process_tells_the_whole_story():
    assert_tells(play("process"))


@pytest.mark.docker
def test_demo_with_containers_tells_the_same_story_and_leaves_nothing_behind():
    assert_tells(play("compose", WHISPER_IMAGE="autostart-test/faster-whisper"))
    left = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project=autostart-demo"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert left.stdout == ""
