"""The paths of the WhisperX server, by real HTTP and the real openai SDK, around an engine that says what it is told."""

import io
import json

import pytest
from openai import OpenAI
from speech_app import FakeEngine, wav
from speech_common.errors import DiarizationUnavailable
from speech_common.transcript import Segment, Transcript, Word
from whisperx_app import ServedX
from whisperx_server import fields

SAID = Transcript(
    "transcribe",
    "en",
    9.5,
    (
        Segment(0, 0.0, 2.0, " Good day.", words=(Word(" Good", 0.0, 1.0, 0.9, "SPEAKER_00"), Word(" day.", 1.0, 2.0, 0.8, "SPEAKER_00")), speaker="SPEAKER_00"),
        Segment(1, 2.0, 3.0, " Sir.", words=(Word(" Sir.", 2.0, 3.0, 0.7, "SPEAKER_00"),), speaker="SPEAKER_00"),
        Segment(2, 4.0, 5.0, " Ann\there.", words=(Word(" Ann\there.", 4.0, 5.0, 0.7, "Ann"),), speaker="Ann"),
        Segment(3, 6.0, 7.0, " Me?", words=(Word(" Me?", 6.0, 7.0, 0.7, "SPEAKER_01"),), speaker="SPEAKER_01"),
    ),
    alignment="WAV2VEC2_ASR_BASE_960H",
)  # fmt: skip


class Says(FakeEngine):
    """Has a transcript ready, and keeps what it was asked for."""

    def __init__(self, transcript=SAID):
        super().__init__()
        self.transcript = transcript
        self.asked = []

    def run(self, model, file, options, progress):
        self.asked.append((model, options))
        for segment in self.transcript.segments:
            progress.said(segment)
        return self.transcript


@pytest.fixture
def engine():
    return Says()


@pytest.fixture
def served(engine):
    with ServedX(engine) as service:
        yield service


@pytest.fixture
def sdk(served):
    with OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def post(served, path="/transcribe", **data):
    return served.post(data, path=path)


def test_transcribe_answers_as_whisperx_does(served, engine):
    response = post(served, diarize="true", max_speakers="3", model="whisper-tiny", language="en")
    body = response.json()
    assert response.status_code == 200
    assert (body["language"], body["alignment"]) == ("en", "WAV2VEC2_ASR_BASE_960H")
    assert body["segments"][0] == {
        "start": 0.0,
        "end": 2.0,
        "text": "Good day.",
        "speaker": "SPEAKER_00",
        "words": [
            {"word": "Good", "start": 0.0, "end": 1.0, "score": 0.9, "speaker": "SPEAKER_00"},
            {"word": "day.", "start": 1.0, "end": 2.0, "score": 0.8, "speaker": "SPEAKER_00"},
        ],
    }
    ((model, options),) = engine.asked
    assert (model, options.diarize, options.max_speakers, options.language) == ("whisper-tiny", True, 3, "en")


def test_nobody_is_named_where_nobody_was_told_apart(served, engine):
    engine.transcript = Transcript(
        "transcribe", "en", 1.0, (Segment(0, 0, 1, " Hi.", words=(Word(" Hi.", 0, 1),)),)
    )
    body = post(served).json()
    assert body["alignment"] == "none"
    assert body["segments"] == [
        {"start": 0, "end": 1, "text": "Hi.", "words": [{"word": "Hi.", "start": 0, "end": 1, "score": 1.0}]}
    ]
    assert post(served, format="txt").text == "Hi.\n"


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("txt", "text/plain", "[SPEAKER_00]: Good day. Sir.\n[Ann]: Ann\there.\n[SPEAKER_01]: Me?\n"),
        ("srt", "text/plain", "1\n00:00:00,000 --> 00:00:02,000\n[SPEAKER_00]: Good day.\n\n2\n"),
        ("vtt", "text/vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n[SPEAKER_00]: Good day.\n\n"),
        ("tsv", "text/tab-separated-values", "start\tend\ttext\n0\t2000\t[SPEAKER_00]: Good day.\n"),
    ],
)
def test_other_formats_name_the_speakers_as_whisperx_does(served, name, kind, text):
    response = post(served, diarize="true", format=name)
    assert response.headers["content-type"].startswith(kind)
    assert response.text.startswith(text)


def test_tab_within_a_text_is_no_column(served):
    assert "4000\t5000\t[Ann]: Ann here.\n" in post(served, diarize="true", format="tsv").text


def test_diarized_json_by_the_sdk(sdk):
    answer = sdk.audio.transcriptions.create(
        model="whisper-1", file=io.BytesIO(wav()), response_format="diarized_json", chunking_strategy="auto"
    )
    assert answer.text == "A: Good day. Sir.\nAnn: Ann\there.\nB: Me?"
    assert [(each.id, each.speaker, each.text) for each in answer.segments] == [
        ("seg_001", "A", "Good day."),
        ("seg_002", "A", "Sir."),
        ("seg_003", "Ann", "Ann\there."),
        ("seg_004", "B", "Me?"),
    ]
    assert (answer.task, answer.duration, answer.usage.seconds) == ("transcribe", 9.5, 9.5)


def test_diarized_stream_by_the_sdk(sdk):
    events = list(
        sdk.audio.transcriptions.create(
            model="whisper-1", file=io.BytesIO(wav()), response_format="diarized_json", stream=True
        )
    )
    told = [event for event in events if event.type == "transcript.text.segment"]
    assert [(event.id, event.speaker, event.text, event.start) for event in told] == [
        ("seg_001", "A", "Good day.", 0.0),
        ("seg_002", "A", "Sir.", 2.0),
        ("seg_003", "Ann", "Ann\there.", 4.0),
        ("seg_004", "B", "Me?", 6.0),
    ]
    joined = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert joined == events[-1].text == "A: Good day. Sir.\nAnn: Ann\there.\nB: Me?"


def test_plain_stream_names_nobody(sdk):
    events = list(sdk.audio.transcriptions.create(model="whisper-1", file=io.BytesIO(wav()), stream=True))
    assert {event.type for event in events} == {"transcript.text.delta", "transcript.text.done"}
    assert events[-1].text == SAID.text


def test_known_speakers_come_through_the_sdk(sdk, engine):
    voice = "data:audio/wav;base64,UklGRg=="
    sdk.audio.transcriptions.create(
        model="whisper-1",
        file=io.BytesIO(wav()),
        response_format="diarized_json",
        known_speaker_names=["Ann"],
        known_speaker_references=[voice],
    )
    ((_, options),) = engine.asked
    assert [(each.name, each.recording) for each in options.references] == [("Ann", b"RIFF")]


def test_known_speaker_who_comes_first_begins_the_stream_with_the_name(sdk, engine):
    said = (
        Segment(0, 0, 1, " Hi.", speaker="Ann"),
        Segment(1, 1, 2, " Ho.", speaker="SPEAKER_00"),
        Segment(2, 2, 3, " Hm.", speaker="Ann"),
    )
    engine.transcript = Transcript("transcribe", "en", 3.0, said)
    asked = {"model": "whisper-1", "response_format": "diarized_json"}
    events = list(sdk.audio.transcriptions.create(file=io.BytesIO(wav()), stream=True, **asked))
    joined = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    whole = sdk.audio.transcriptions.create(file=io.BytesIO(wav()), **asked).text
    assert joined == events[-1].text == whole == "Ann: Hi.\nA: Ho.\nAnn: Hm."


def test_samples_of_ordinary_quality_are_taken(served):
    voice = "data:audio/wav;base64," + "A" * 2_560_000
    fields = {
        "known_speaker_names[]": [f"Speaker {n}" for n in range(4)],
        "known_speaker_references[]": [voice] * 4,
    }
    assert post(served, "/v1/audio/transcriptions", **fields).status_code == 200


def test_arrow_in_a_text_is_no_time(served, engine):
    engine.transcript = Transcript("transcribe", "en", 1.0, (Segment(0, 0, 1, " a --->b"),))
    assert post(served, format="srt").text.splitlines()[2] == "a ->b"


def test_27_speakers_run_out_of_letters_and_go_on(served, engine):
    engine.transcript = Transcript(
        "transcribe",
        "en",
        40.0,
        tuple(Segment(n, n, n + 1, " x", speaker=f"SPEAKER_{n:02d}") for n in range(28)),
    )
    body = post(served, "/v1/audio/transcriptions", response_format="diarized_json").json()
    assert [each["speaker"] for each in body["segments"]][24:] == ["Y", "Z", "AA", "AB"]


def test_job_has_its_result_in_every_format_and_its_events_with_speakers(served):
    job = served.post({"diarize": "true"}, path="/transcribe", headers={"prefer": "respond-async"})
    assert job.status_code == 202
    events = served.get(job.headers["location"] + "/events").text
    assert '"transcript.text.segment"' not in events
    result = served.get(job.headers["location"] + "/result").json()
    assert result["segments"][2]["speaker"] == "Ann"
    for name in fields.RESULT_FORMATS:
        path = f"{job.headers['location']}/result?response_format={name}"
        assert served.get(path).status_code == 200
    refused = served.get(f"{job.headers['location']}/result?response_format=docx")
    assert refused.json()["error"]["code"] == "invalid_value"


def test_events_of_a_diarized_job_tell_segments(served):
    job = served.post({"response_format": "diarized_json"}, headers={"prefer": "respond-async"})
    lines = [line for line in served.get(job.headers["location"] + "/events").text.splitlines() if line]
    told = [json.loads(line.removeprefix("data: ")) for line in lines if "text.segment" in line]
    assert [each["speaker"] for each in told] == ["A", "A", "Ann", "B"]


def test_want_of_a_token_is_a_424_that_is_not_asked_again(served, engine):
    def fail(*_):
        raise DiarizationUnavailable("set HF_TOKEN")

    engine.run = fail
    response = post(served, diarize="true")
    assert response.status_code == 424
    assert response.json() == {
        "error": {
            "message": "Speakers cannot be told apart: set HF_TOKEN",
            "type": "invalid_request_error",
            "param": None,
            "code": "diarization_unavailable",
        }
    }


def test_description_names_every_field(served):
    paths = served.get("/openapi.json").json()["paths"]
    for path, honoured in (
        ("/v1/audio/transcriptions", fields.HONOURED),
        ("/transcribe", fields.HONOURED_BY_TRANSCRIBE),
    ):
        described = paths[path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"][
            "properties"
        ]
        named = {name.split("[")[0] for name in described}
        # What OpenAI's clients send, and can only be 0, needs no field on the page.
        assert named == {name.split("[")[0] for name in honoured} - {"temperature"}
    operations = [each["operationId"] for path in paths.values() for each in path.values()]
    assert len(set(operations)) == len(operations)


@pytest.mark.parametrize(
    "path", ["/health", "/health/live", "/health/ready", "/health/busy", "/v1/models", "/docs", "/metrics"]
)
def test_what_every_speech_server_has_is_here_too(served, path):
    assert served.get(path).status_code == 200
