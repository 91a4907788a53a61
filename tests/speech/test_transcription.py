"""What real recordings become, through the real openai SDK and as raw multipart."""

import asyncio
import wave

import httpx
import pytest
from hearing import EXAMPLES, encoded, word_error_rate
from openai import OpenAI

AUSTEN = str(EXAMPLES / "austen-0890.wav")
SPOKEN = (EXAMPLES / "austen-0890.txt").read_text()

# What tiny gets wrong in these sentences is a word at most; a wrong rate, channel or cut ruins most of them.
MAX_WORD_ERROR_RATE = 0.15


@pytest.fixture(scope="session")
def client(whisper):
    with OpenAI(base_url=f"{whisper.url}/v1", api_key="unused", max_retries=0, timeout=60) as client:
        yield client


def test_real_speech_is_written_down(client):
    names = ["austen-0870", "austen-0880", "austen-0890"]
    spoken = " ".join((EXAMPLES / f"{name}.txt").read_text() for name in names)
    written = []
    for name in names:
        with (EXAMPLES / f"{name}.wav").open("rb") as file:
            written.append(client.audio.transcriptions.create(model="whisper-1", file=file).text)
    assert word_error_rate(spoken, " ".join(written)) <= MAX_WORD_ERROR_RATE


def test_two_speakers_in_turn_are_both_written_down(client):
    with (EXAMPLES / "two-speakers.wav").open("rb") as file:
        answer = client.audio.transcriptions.create(model="whisper-1", file=file, language="en")
    spoken = (EXAMPLES / "two-speakers.txt").read_text()
    assert word_error_rate(spoken, answer.text) <= MAX_WORD_ERROR_RATE


def test_other_rates_and_stereo_are_heard_at_the_right_speed(whisper, tmp_path):
    """Made with the ratio of the rates, by repeating or dropping samples: crude, but the words stay."""
    rate = 44100
    with wave.open(str(EXAMPLES / "austen-0890.wav")) as source:
        samples = memoryview(source.readframes(source.getnframes())).cast("h")
    count = len(samples) * rate // 16000
    picked = (samples[i * 16000 // rate] for i in range(count))
    frames = b"".join(sample.to_bytes(2, "little", signed=True) * 2 for sample in picked)
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as target:
        target.setparams((2, 2, rate, 0, "NONE", ""))
        target.writeframes(frames)
    answer = whisper.transcribe(files={"file": (tmp_path / "stereo.wav").read_bytes()}).json()
    assert answer["usage"]["seconds"] == pytest.approx(5.3, abs=0.01)
    assert word_error_rate(SPOKEN, answer["text"]) <= MAX_WORD_ERROR_RATE


def test_requests_at_once_are_all_answered_while_health_answers_too(whisper, brief):
    async def at_once():
        async with httpx.AsyncClient(base_url=whisper.url, timeout=60) as client:
            posts = [
                asyncio.create_task(client.post("/v1/audio/transcriptions", files={"file": brief}))
                for _ in range(4)
            ]
            answered_meanwhile = 0
            while not all(post.done() for post in posts):
                assert (await client.get("/health/ready")).status_code == 200
                answered_meanwhile += not any(post.done() for post in posts)
                await asyncio.sleep(0.01)
            return answered_meanwhile, [post.result() for post in posts]

    answered_meanwhile, answers = asyncio.run(at_once())
    assert answered_meanwhile > 5  # the event loop was free while the first one was computed
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.json()["text"] for answer in answers}) == 1


def test_recordings_sent_at_once_are_not_mixed(start_whisper):
    whisper = start_whisper(WHISPER_WORKERS="2")
    names = ["austen-0870", "austen-0880", "austen-0890"]

    async def transcribe(client, name):
        file = (EXAMPLES / f"{name}.wav").read_bytes()
        return (await client.post("/v1/audio/transcriptions", files={"file": file})).json()["text"]

    async def at_once():
        async with httpx.AsyncClient(base_url=whisper.url, timeout=60) as client:
            return await asyncio.gather(*(transcribe(client, name) for name in names))

    for name, written in zip(names, asyncio.run(at_once()), strict=True):
        assert word_error_rate((EXAMPLES / f"{name}.txt").read_text(), written) <= 2 * MAX_WORD_ERROR_RATE


def test_joined_recordings_of_different_rates_and_channels_are_heard_to_the_end(whisper):
    joined = encoded(AUSTEN, "mp3", "libmp3lame", rate=44100, layout="stereo") + encoded(
        AUSTEN, "mp3", "libmp3lame", rate=16000, layout="mono"
    )
    response = whisper.transcribe(files={"file": joined})
    assert response.status_code == 200
    assert response.json()["usage"]["seconds"] == pytest.approx(10.6, abs=0.4)
    assert response.json()["text"].lower().count("selfish") == 2
