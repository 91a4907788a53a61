"""Streams and jobs with a real model, asked by the real SDK."""

import asyncio

import openai
from waiting import block_until


def test_streamed_text_is_the_text_that_is_not_streamed(whisper, recording):
    with openai.OpenAI(base_url=whisper.url + "/v1", api_key="none") as client:
        plain = client.audio.transcriptions.create(model="whisper-1", file=recording)
        *deltas, done = client.audio.transcriptions.create(model="whisper-1", file=recording, stream=True)
    assert "".join(event.delta for event in deltas) == done.text == plain.text != ""
    assert done.usage.seconds == plain.usage.seconds


def test_asynchronous_sdk_streams_and_waits_for_jobs(whisper, recording):
    async def main():
        async with openai.AsyncOpenAI(base_url=whisper.url + "/v1", api_key="none") as client:
            stream = await client.audio.transcriptions.create(model="whisper-1", file=recording, stream=True)
            events = [event async for event in stream]
            accepted = await client.audio.transcriptions.with_raw_response.create(
                model="whisper-1", file=recording, extra_headers={"prefer": "respond-async"}
            )
            return events, accepted.status_code, accepted.headers["location"]

    events, status, path = asyncio.run(main())
    assert status == 202
    block_until(lambda: whisper.get(path).json()["state"] == "completed")
    job = whisper.get(path).json()
    assert job["text"] == events[-1].text == whisper.get(f"{path}/result").json()["text"]
    assert (job["percent"], job["language"]) == (100, "en")
    assert '"transcript.text.done"' in whisper.get(f"{path}/events").text
