"""Bad input is answered with its status, code and field, in the shape the OpenAI clients read; the server lives on."""

import http.client
import io
import itertools
import struct
from pathlib import Path

import av
import httpx
import openai
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def lives_on(whisper):
    yield
    assert whisper.get("/health/ready").status_code == 200
    assert "Traceback" not in whisper.log


def refusal(response):
    """Return status, param and code, having checked the shape."""
    error = response.json()["error"]
    assert set(response.json()) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert "Traceback" not in response.text
    assert response.headers["x-request-id"]
    return response.status_code, error["param"], error["code"]


def half_of_a_flac():
    whole = io.BytesIO()
    with av.open(str(EXAMPLES / "austen-0890.wav")) as source, av.open(whole, "w", "flac") as target:
        stream = target.add_stream("flac", rate=16000, layout="mono")
        for frame in itertools.chain(source.decode(audio=0), [None]):
            target.mux(stream.encode(frame))
    return whole.getvalue()[: len(whole.getvalue()) // 2]


def video_without_sound():
    video = io.BytesIO()
    with av.open(video, "w", "mp4") as target:
        stream = target.add_stream("mpeg4", rate=25, width=64, height=64, pix_fmt="yuv420p")
        for frame in itertools.chain([av.VideoFrame(64, 64, "yuv420p") for _ in range(25)], [None]):
            target.mux(stream.encode(frame))
    return video.getvalue()


PLAYLIST = (
    f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{EXAMPLES}/austen-0890.wav\n#EXT-X-ENDLIST\n"
)
CONCAT = f"ffconcat version 1.0\nfile '{EXAMPLES}/austen-0890.wav'\n"
WAV = (EXAMPLES / "austen-0890.wav").read_bytes()


def patched(content, name, **fields):
    """Write numbers of 4 bytes into a box of an MP4, by their place behind its name."""
    patched = bytearray(content)
    for place, value in fields.items():
        struct.pack_into(">I", patched, content.index(name) + int(place.removeprefix("at")), value)
    return bytes(patched)


def packed(name, codec, seconds=0.3, **stream):
    target = io.BytesIO()
    with av.open(target, "w", name) as container:
        sound = container.add_stream(codec, **{"rate": 16000, "layout": "mono", **stream})
        with av.open(str(EXAMPLES / "austen-0880.wav")) as source:
            resampler = av.AudioResampler(sound.format, sound.layout, sound.rate, sound.frame_size or 1024)
            left = int(seconds * sound.rate)
            for frame in itertools.chain(source.decode(audio=0), [None]):
                for resampled in resampler.resample(frame):
                    if left > 0:
                        container.mux(sound.encode(resampled))
                    left -= resampled.samples
            container.mux(sound.encode(None))
    return target.getvalue()


def mp4_of_hours():
    """A few kB, whose tables say that each packet lasts for 100 minutes."""
    small = patched(packed("mp4", "aac"), b"stts", at16=16_000 * 6_000)
    return patched(patched(small, b"mdhd", at20=16_000 * 36_000), b"elst", at12=36_000_000)


def mp4_of_a_billion_samples():
    return patched(packed("mp4", "aac"), b"stsz", at8=1, at12=2**30)


def flac_of_hours():
    """A few kB, whose header says that there are 2^36 samples."""
    content = bytearray(packed("flac", "flac"))
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    return bytes(content)


NO_FORMAT = "The file could not be read as audio: its format is unknown, or it is damaged."
NO_TRACK = "The file could not be read as audio: it has no audio track."
NO_SOUND = "The file could not be read as audio: it holds no sound."
CUT_OFF = "The file could not be read as audio: it is cut off, its header announces "
TOO_LONG = (
    "The file could not be read as audio: it lasts longer than the limit of 14400 s (set by MAX_AUDIO)."
)


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", "empty_file", "The uploaded file is empty."),
        (b"\0", "invalid_audio", NO_FORMAT),
        (bytes(range(256)) * 400, "invalid_audio", NO_FORMAT),
        (b"hello world\n" * 1000, "invalid_audio", NO_FORMAT),
        (WAV[:20], "invalid_audio", NO_FORMAT),
        (WAV[:44], "truncated_audio", CUT_OFF + "5.3 s but only 0.0 s are there."),
        (WAV[:60_000], "truncated_audio", CUT_OFF + "5.3 s but only 1.9 s are there."),
        (WAV[:40] + struct.pack("<I", 0), "invalid_audio", NO_SOUND),
        (PLAYLIST.encode(), "invalid_audio", NO_FORMAT),
        (CONCAT.encode(), "invalid_audio", NO_FORMAT),
        (half_of_a_flac, "truncated_audio", CUT_OFF),
        (video_without_sound, "invalid_audio", NO_TRACK),
        (mp4_of_hours, "audio_too_long", TOO_LONG),
        (mp4_of_a_billion_samples, "invalid_audio", NO_FORMAT),
        (flac_of_hours, "audio_too_long", TOO_LONG),
    ],
    ids=[
        "empty",
        "byte",
        "garbage",
        "text",
        "no-header",
        "only-header",
        "half-wav",
        "no-samples",
        "playlist",
        "concat",
        "half-flac",
        "no-audio",
        "mp4-of-hours",
        "mp4-of-a-billion-samples",
        "flac-of-hours",
    ],
)
def test_file_that_is_no_whole_recording_is_refused(whisper, content, code, message):
    if callable(content):
        content = content()
    response = whisper.transcribe({"model": "whisper-1"}, files={"file": ("speech.wav", content)})
    assert refusal(response) == (400, "file", code)
    assert response.json()["error"]["message"].startswith(message)


def sound_of_a_video():
    target = io.BytesIO()
    with av.open(target, "w", "mp4") as container:
        picture = container.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p")
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for frame in itertools.chain([av.VideoFrame(64, 64, "yuv420p") for _ in range(15)], [None]):
            container.mux(picture.encode(frame))
        with av.open(str(EXAMPLES / "austen-0880.wav")) as source:
            resampler = av.AudioResampler(sound.format, "mono", 16000, sound.frame_size)
            for frame in itertools.chain(source.decode(audio=0), [None]):
                for resampled in resampler.resample(frame):
                    container.mux(sound.encode(resampled))
        container.mux(sound.encode(None))
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "seconds", "said"),
    [
        (lambda: packed("wav", "pcm_s16le", 0.05), 0.05, ""),
        (sound_of_a_video, 3.0, "young man"),
        (lambda: packed("flac", "flac", 3.0, rate=192_000, layout="7.1"), 3.0, "young man"),
    ],
    ids=["fifty-milliseconds", "video", "192-khz-in-8-channels"],
)
def test_odd_recording_under_a_wrong_name_is_heard(whisper, content, seconds, said):
    response = whisper.transcribe(files={"file": ("slides.pdf", content(), "application/pdf")})
    assert response.status_code == 200
    assert response.json()["usage"]["seconds"] == pytest.approx(seconds, abs=0.15)
    assert said in response.json()["text"]


def test_wav_from_a_pipe_with_no_length_in_its_header_is_accepted(whisper):
    open_ended = WAV[:40] + struct.pack("<I", 0xFFFFFFFF) + WAV[44:]
    response = whisper.transcribe(files={"file": open_ended})
    assert response.status_code == 200
    assert response.json()["usage"]["seconds"] == 5.3


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("language", "klingon", "invalid_value"),
        ("language", "xx", "invalid_value"),
        ("response_format", "docx", "invalid_value"),
        ("response_format", "diarized_json", "unsupported_field"),
        ("temperature", "hot", "invalid_value"),
        ("temperature", "1.5", "invalid_value"),
        ("temperature", "nan", "invalid_value"),
        ("beam_size", "0", "invalid_value"),
        ("beam_size", "1e3", "invalid_value"),
        ("vad_filter", "perhaps", "invalid_value"),
        ("task", "sing", "invalid_value"),
        ("batch_size", "0", "invalid_value"),
        ("chunking_strategy", "manual", "invalid_value"),
        ("languages[]", ["en", "klingon"], "invalid_value"),
        ("include[]", "logprobs", "unsupported_field"),
        ("known_speaker_names[]", "Ann", "unsupported_field"),
        ("known_speaker_references[]", "data:audio/wav;base64,AAAA", "unsupported_field"),
        ("language", ["en", "fr"], "repeated_field"),
        ("colour", "red", "unknown_field"),
        ("timestamp_granularities[]", "letter", "invalid_value"),
    ],
)
def test_field_that_cannot_be_honoured_is_refused_by_name(whisper, recording, field, value, code):
    response = whisper.transcribe({field: value}, files={"file": recording})
    assert refusal(response) == (400, field.split("[")[0], code)


@pytest.mark.parametrize("response_format", ["json", "text", "srt", "vtt"])
def test_word_granularity_needs_verbose_json(whisper, recording, response_format):
    data = {"response_format": response_format, "timestamp_granularities[]": "word"}
    response = whisper.transcribe(data, files={"file": recording})
    assert refusal(response) == (400, "timestamp_granularities", "invalid_value")


def test_unknown_model_is_404_naming_those_there_are(whisper, recording):
    response = whisper.transcribe({"model": "gpt-9"}, files={"file": recording})
    assert refusal(response) == (404, "model", "model_not_found")
    assert "whisper-tiny, whisper-1" in response.json()["error"]["message"]


def test_language_that_the_model_lacks_is_refused_with_those_it_has(whisper, recording):
    response = whisper.transcribe({"language": "FR"}, files={"file": recording})
    assert refusal(response) == (400, "language", "invalid_value")
    assert "only en" in response.json()["error"]["message"]


def test_translation_by_an_english_model_is_refused(whisper, recording):
    response = whisper.transcribe(path="/v1/audio/translations", files={"file": recording})
    assert refusal(response) == (400, "model", "unsupported_field")


def test_missing_file_is_named(whisper):
    response = whisper.transcribe(files={"model": (None, "whisper-1")})
    assert refusal(response) == (400, "file", "missing_field")


def test_file_sent_as_text_is_refused(whisper):
    response = whisper.transcribe(files={"file": (None, "hello")})
    assert refusal(response) == (400, "file", "invalid_value")


@pytest.mark.parametrize(
    "request_parts",
    [
        {"json": {"model": "whisper-1"}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"no boundary here", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        {"content": b"--b\r\n\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        {"files": [("file", b"a"), ("file", b"b")]},
        {},
    ],
    ids=["json", "no-boundary", "wrong-boundary", "nameless", "two-files", "nothing"],
)
def test_body_that_is_no_form_is_refused(whisper, request_parts):
    status, _, code = refusal(whisper.transcribe(**request_parts))
    assert (status, code) in {(400, "malformed_form"), (400, "missing_field")}


def test_body_over_the_limit_is_413_before_it_is_read(whisper):
    connection = http.client.HTTPConnection(whisper.url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/v1/audio/transcriptions")
    connection.putheader("content-type", "multipart/form-data; boundary=b")
    connection.putheader("content-length", str(600_000_000))
    connection.endheaders()
    response = connection.getresponse()  # not a byte of the body has been sent
    assert response.status == 413
    assert b'"code":"body_too_large"' in response.read()
    connection.close()


def test_body_without_a_length_is_stopped_at_the_limit(whisper):
    def endless():
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="upload"\r\n\r\n'
        for _ in range(60):
            yield bytes(100_000)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = whisper.transcribe(content=endless(), headers=headers)
    assert refusal(response) == (413, None, "body_too_large")


def test_the_sdk_is_told_what_is_wrong(whisper):
    with (
        openai.OpenAI(base_url=f"{whisper.url}/v1", api_key="unused", max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        client.audio.transcriptions.create(model="whisper-1", file=b"not audio at all")
    assert (caught.value.code, caught.value.param) == ("invalid_audio", "file")
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nothing", 404, "not_found"), ("PUT", "/v1/models", 405, "method_not_allowed")],
)
def test_wrong_paths_and_methods_answer_in_the_same_shape(whisper, method, path, status, code):
    assert refusal(httpx.request(method, whisper.url + path)) == (status, None, code)


def float_wav(value):
    samples = struct.pack("<f", value) * 16000
    fmt = struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
    head = b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt " + struct.pack("<I", 16) + fmt
    return head + b"data" + struct.pack("<I", len(samples)) + samples


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_samples_that_are_no_sound_are_refused_and_not_transcribed_as_gibberish(whisper, value):
    response = whisper.transcribe(files={"file": float_wav(value)})
    assert refusal(response) == (400, "file", "invalid_audio")


FILE_PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="upload"\r\n\r\n' + WAV + b"\r\n"


@pytest.mark.parametrize(
    "body",
    [
        FILE_PART,
        FILE_PART[:50_000],
        FILE_PART + b'--b\r\nContent-Disposition: form-data; name="language"\r\n\r\nf',
    ],
    ids=["before-the-last-boundary", "in-the-file", "in-a-later-field"],
)
def test_form_that_is_cut_off_is_refused_as_such(whisper, body):
    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = whisper.transcribe(content=body, headers=headers)
    assert refusal(response) == (400, None, "malformed_form")
    assert "ends before its closing boundary" in response.json()["error"]["message"]


@pytest.mark.parametrize("charset", ["idna", "undefined", "raw_unicode_escape", "utf-16"])
def test_charset_other_than_utf8_is_refused(whisper, charset):
    field = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\\ud800\r\n'
    headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
    response = whisper.transcribe(content=field + FILE_PART + b"--b--\r\n", headers=headers)
    assert refusal(response) == (400, None, "malformed_form")
    assert charset in response.json()["error"]["message"]


@pytest.mark.parametrize("field", ["timestamp_granularities[0]", "model[name]"])
def test_key_of_a_field_that_is_no_object_is_refused_and_not_ignored(whisper, recording, field):
    response = whisper.transcribe({field: "word"}, files={"file": recording})
    assert refusal(response) == (400, field, "unknown_field")


def test_hotwords_that_leave_no_room_for_a_transcript_are_refused(whisper, recording):
    data = {"prompt": "Jane Austen said hello. " * 100, "hotwords": "alpha beta gamma " * 100}
    response = whisper.transcribe(data, files={"file": recording})
    assert refusal(response) == (400, "hotwords", "invalid_value")


def test_trailing_slash_is_not_redirected(whisper, recording):
    response = whisper.transcribe(path="/v1/audio/transcriptions/", files={"file": recording})
    assert refusal(response) == (404, None, "not_found")
