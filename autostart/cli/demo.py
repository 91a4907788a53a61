"""`autostart demo`: the main job, end to end, on real speech, told as it happens.

Owns the story. What it is played with (configuration, credentials, the gateway's process) is `demo_stage`.
Everything is real: `autostart serve` in a process of its own, the speech server of services/faster-whisper, a
real Whisper model, a real recording, curl's and the openai SDK's way in.
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence

from autostart.cli.demo_stage import HOST, IDLE_TIMEOUT_S, WHISPERX_HOST, CannotPlay, Stage, set_up

_READABLE_METRICS = (
    "autostart_service_state",
    "autostart_requests_total",
    "autostart_starts_total",
    "autostart_stops_total",
    "autostart_start_duration_seconds_sum",
    "autostart_running_seconds_total",
    "autostart_asleep_seconds_total",
    "autostart_auth_failures_total",
)


_DIGITS_TOO_MANY = re.compile(r"(\.\d{3})\d+$")


def main(argv: Sequence[str]) -> int:
    """Play the demo and return the exit code."""
    parser = argparse.ArgumentParser(prog="autostart demo", description="Show the main job, end to end.")
    parser.add_argument(
        "--runtime",
        choices=["process", "compose"],
        default="process",
        help="run the speech server as a process (default), or in a container",
    )
    parser.add_argument(
        "--whisperx",
        metavar="PYTHON",
        help="show the WhisperX service beside it, run by the Python of an environment that has it",
    )
    options = parser.parse_args(argv)
    try:
        with set_up(options.runtime, options.whisperx) as stage:
            _play(stage)
    except CannotPlay as exc:
        print(f"\nautostart demo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _play(stage: Stage) -> None:
    recording = stage.recording
    spoken = recording.with_suffix(".txt").read_text(encoding="utf-8").strip()

    _say(1, "`autostart serve` runs; the speech service is asleep")
    print(stage.autostart("status"))
    stage.expect_state("stopped")

    _say(2, "a request without credentials is refused, and wakes nothing")
    print(f"$ curl -i -F file=@{recording.name} http://{HOST}:{stage.port}/v1/audio/transcriptions")
    refused = stage.post_recording(auth=None)
    print(f"HTTP {refused.status_code}: {refused.json()['error']['message']}")
    _require(refused.status_code == 401, f"expected 401, not {refused.status_code}: {refused.text}")
    stage.expect_state("stopped")
    print("the service is still asleep")

    _say(3, f"a real recording ({recording.name}) is posted to the sleeping service")
    print(f"said:     {spoken}")
    print(f"$ curl -u demo:… -F file=@{recording.name} http://{HOST}:{stage.port}/v1/audio/transcriptions")
    begun = time.monotonic()
    answer = stage.post_recording(auth=stage.basic_auth)
    cold_s = time.monotonic() - begun
    _require(answer.status_code == 200, f"expected 200, not {answer.status_code}: {answer.text}")
    cold_text = answer.json()["text"]
    print(f"heard:    {cold_text}")
    start = stage.facts()["last_start"]
    started_s, ready_s = start["runtime_s"], start["total_s"]
    print(
        f"times:    started after {started_s:.2f} s, ready after {ready_s:.2f} s, answered after {cold_s:.2f} s"
    )
    print('$ openai.OpenAI(base_url=…, api_key=…).audio.transcriptions.create(model="whisper-1", file=…)')
    begun = time.monotonic()
    warm_text = stage.transcribe_with_sdk()
    warm_s = time.monotonic() - begun
    print(f"heard:    {warm_text}")
    print(f"times:    answered after {warm_s:.2f} s, warm")
    _require(bool(cold_text) and warm_text == cold_text, "the two transcripts differ")

    _say(4, f"nobody comes for {IDLE_TIMEOUT_S} s, and the service falls asleep")
    print(stage.autostart("explain", HOST))
    running = stage.running()
    _require(bool(running), "nothing of the service was seen to run")
    stage.wait_until_stopped()
    print(stage.autostart("status"))
    _require(not stage.still_running(running), f"still there: {running}")
    print(f"gone: {', '.join(running)}")

    if stage.has_whisperx:
        _play_whisperx(stage)

    _say(5 + stage.has_whisperx, "what Prometheus sees of all this")
    for line in stage.metrics().splitlines():
        if (
            line.startswith(_READABLE_METRICS)
            and not line.endswith((" 0", " 0.0"))
            and "_created" not in line
        ):
            print(_DIGITS_TOO_MANY.sub(r"\1", line))


def _play_whisperx(stage: Stage) -> None:
    recording = stage.conversation
    _say(5, f"a conversation ({recording.name}) is posted to the other service, which sleeps too")
    print(stage.autostart("status"))
    print(
        f"$ curl -u demo:… -F file=@{recording.name} -F diarize=true -F format=txt "
        f"http://{WHISPERX_HOST}:{stage.port}/transcribe"
    )
    begun = time.monotonic()
    answer = stage.post_conversation()
    _require(answer.status_code == 200, f"expected 200, not {answer.status_code}: {answer.text}")
    print(answer.text.rstrip())
    start = stage.facts(WHISPERX_HOST)["last_start"]
    print(f"times:    ready after {start['total_s']:.2f} s, answered after {time.monotonic() - begun:.2f} s")
    speakers = {line.partition("]: ")[0] for line in answer.text.splitlines()}
    _require(len(speakers) == 2, f"two people speak, and not {len(speakers)}")
    stage.expect_state("stopped")
    print("the first service was not disturbed: it is still asleep")
    stage.wait_until_stopped(WHISPERX_HOST)
    print(stage.autostart("status"))


def _say(number: int, what: str) -> None:
    print(f"\n\033[1m{number}. {what}\033[0m" if sys.stdout.isatty() else f"\n{number}. {what}", flush=True)


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - as in assert
    if not holds:
        raise CannotPlay(otherwise)
