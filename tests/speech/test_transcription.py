"""What real recordings become, through the real openai SDK and as raw multipart."""

import asyncio
import io
import itertools
import re
import wave
from pathlib import Path

import av
import httpx
import jiwer
import pytest
from openai import AsyncOpenAI, OpenAI

EXAMPLES = Path(__file__).parents[2] / "examples"
SPOKEN = (EXAMPLES / "austen-0890.txt").read_text()

# What tiny gets wrong in these sentences is a word at most; a wrong rate, channel or cut ruins most of them.
MAX_WORD_ERROR_RATE = 0.15


def word_error_rate(spoken: str, written: str) -> float:
    """Compare as is usual: case, punctuation and hyphens do not count, nor does Mr. or Mister."""

    def normal(text: str) -> str:
        words = re.sub(r"[^a-z0-9' ]+", " ", text.lower()).split()
        return " ".join({"mister": "mr"}.get(word, word) for word in words)

    return jiwer.wer(normal(spoken), normal(written))


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


def test_json_carries_text_and_usage(client, recording):
    answer = client.audio.transcriptions.create(model="whisper-tiny", file=recording)
    assert answer.usage.type == "duration"
    assert answer.usage.seconds == pytest.approx(5.3)
    assert word_error_rate(SPOKEN, answer.text) <= MAX_WORD_ERROR_RATE


def test_async_client_gets_the_same_text(client, whisper, recording):
    async def transcribe():
        async with AsyncOpenAI(base_url=f"{whisper.url}/v1", api_key="unused", max_retries=0) as other:
            return await other.audio.transcriptions.create(model="whisper-1", file=recording)

    expected = client.audio.transcriptions.create(model="whisper-1", file=recording).text
    assert expected == asyncio.run(transcribe()).text


def test_text_is_plain_text_and_not_a_json_string(client, recording):
    answer = client.audio.transcriptions.create(model="whisper-1", file=recording, response_format="text")
    assert isinstance(answer, str)
    assert answer.endswith(".\n")
    assert not answer.startswith('"')
    assert word_error_rate(SPOKEN, answer) <= MAX_WORD_ERROR_RATE


@pytest.mark.parametrize(("name", "mark"), [("srt", ","), ("vtt", ".")])
def test_subtitles_carry_cues_within_the_recording(client, recording, name, mark):
    answer = client.audio.transcriptions.create(model="whisper-1", file=recording, response_format=name)
    start = "WEBVTT\n\n" if name == "vtt" else "1\n"
    stamp = rf"(\d\d):(\d\d):(\d\d){re.escape(mark)}(\d{{3}})"
    match = re.fullmatch(rf"{start}{stamp} --> {stamp}\n(.+)\n\n", answer)
    assert match, answer
    h1, m1, s1, ms1, h2, m2, s2, ms2, text = match.groups()
    assert (h1, m1, h2, m2) == ("00", "00", "00", "00")
    assert 0 <= int(s1) * 1000 + int(ms1) < int(s2) * 1000 + int(ms2) <= 5400
    assert word_error_rate(SPOKEN, text) <= MAX_WORD_ERROR_RATE


def test_verbose_json_has_whole_segments_and_no_words_by_default(client, recording):
    answer = client.audio.transcriptions.create(
        model="whisper-1", file=recording, response_format="verbose_json"
    )
    body = answer.to_dict()
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "english", 5.3)
    assert body["usage"] == {"type": "duration", "seconds": 5.3}
    assert "words" not in body
    fields = "id seek start end text tokens temperature avg_logprob compression_ratio no_speech_prob"
    for number, segment in enumerate(body["segments"]):
        assert set(segment) == set(fields.split())
        assert None not in segment.values()
        assert segment["id"] == number
        assert segment["tokens"]
        assert 0 <= segment["start"] < segment["end"] <= 5.4
        assert segment["avg_logprob"] < 0
    assert "".join(segment["text"] for segment in body["segments"]).strip() == body["text"]


def test_word_granularity_alone_leaves_segments_out(client, recording):
    body = client.audio.transcriptions.create(
        model="whisper-1", file=recording, response_format="verbose_json", timestamp_granularities=["word"]
    ).to_dict()
    assert "segments" not in body
    assert [set(word) for word in body["words"]] == [{"word", "start", "end"}] * len(body["words"])
    assert " ".join(word["word"] for word in body["words"]) == body["text"].replace("-", " -")
    times = [time for word in body["words"] for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert times[-1] <= 5.4


def test_both_granularities_give_both_lists(client, recording):
    body = client.audio.transcriptions.create(
        model="whisper-1",
        file=recording,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    ).to_dict()
    assert body["words"]
    assert body["segments"]


def test_fields_of_our_own_are_honoured_beside_openais(client, recording):
    answer = client.audio.transcriptions.create(
        model="whisper-1",
        file=recording,
        prompt="Jane Austen.",
        temperature=0.2,
        extra_body={"hotwords": "selfish", "vad_filter": True, "beam_size": 2, "word_timestamps": True},
        response_format="verbose_json",
    )
    assert answer.words
    assert answer.segments
    assert answer.segments[0].temperature == pytest.approx(0.2)


def test_vad_filter_leaves_nothing_of_silence(client, tmp_path):
    with wave.open(str(tmp_path / "silence.wav"), "wb") as silence:
        silence.setparams((1, 2, 16000, 0, "NONE", ""))
        silence.writeframes(bytes(2 * 16000 * 3))
    body = client.audio.transcriptions.create(
        model="whisper-1",
        file=tmp_path / "silence.wav",
        language="en",
        response_format="verbose_json",
        extra_body={"vad_filter": "true"},
    ).to_dict()
    assert (body["text"], body["segments"], body["duration"]) == ("", [], 3.0)


def test_file_may_come_first_or_last_and_lists_without_brackets(whisper, recording):
    fields = [
        ("response_format", (None, "verbose_json")),
        ("timestamp_granularities", (None, "word")),
        ("timestamp_granularities", (None, "segment")),
        ("model", (None, "whisper-1")),
    ]
    file = [("file", ("liar.mp3", recording, "image/png"))]
    first, last = (whisper.transcribe(files=parts).json() for parts in (file + fields, fields + file))
    assert first == last
    assert first["words"]
    assert first["segments"]


@pytest.mark.parametrize("rate", [8000, 44100])
def test_other_rates_and_stereo_are_heard_at_the_right_speed(whisper, tmp_path, rate):
    """Made with the ratio of the rates, by repeating or dropping samples: crude, but the words stay."""
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


def test_requests_at_once_are_all_answered_while_health_answers_too(whisper, recording):
    async def at_once():
        async with httpx.AsyncClient(base_url=whisper.url, timeout=60) as client:
            posts = [
                asyncio.create_task(client.post("/v1/audio/transcriptions", files={"file": recording}))
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
    names = ["austen-0870", "austen-0880", "austen-0890"] * 2

    async def transcribe(client, name):
        file = (EXAMPLES / f"{name}.wav").read_bytes()
        return (await client.post("/v1/audio/transcriptions", files={"file": file})).json()["text"]

    async def at_once():
        async with httpx.AsyncClient(base_url=whisper.url, timeout=60) as client:
            return await asyncio.gather(*(transcribe(client, name) for name in names))

    for name, written in zip(names, asyncio.run(at_once()), strict=True):
        assert word_error_rate((EXAMPLES / f"{name}.txt").read_text(), written) <= 2 * MAX_WORD_ERROR_RATE


def encoded(name, codec, rate, layout):
    """Encode the recording anew at another rate."""
    target = io.BytesIO()
    with av.open(str(EXAMPLES / "austen-0890.wav")) as source, av.open(target, "w", name) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        resampler = av.AudioResampler(stream.format, layout, rate, stream.frame_size)
        for frame in itertools.chain(source.decode(audio=0), [None]):
            for resampled in resampler.resample(frame):
                container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    return target.getvalue()


@pytest.mark.parametrize(("name", "codec"), [("mp3", "libmp3lame"), ("adts", "aac")])
def test_joined_recordings_of_different_rates_and_channels_are_heard_to_the_end(whisper, name, codec):
    joined = encoded(name, codec, 44100, "stereo") + encoded(name, codec, 16000, "mono")
    response = whisper.transcribe(files={"file": joined})
    assert response.status_code == 200
    assert response.json()["usage"]["seconds"] == pytest.approx(10.6, abs=0.4)
    assert response.json()["text"].lower().count("selfish") == 2
