"""What is made of a file before a model hears it: how long it says it is, what is missing, what it may cost."""

import io
import itertools
import struct
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hearing import RATE, samples_of, wav
from speech_common.errors import AudioTooLong, TruncatedAudio, UnreadableAudio
from speech_common.sound.audio import announced_s, decoded_blocks
from speech_common.sound.headers import announced_by_wav_s
from speech_common.sound.mp4 import overstates

OPUS_RATE = 48_000
FRAME = 960


def heard(content, max_s=3600.0):
    return np.concatenate(list(decoded_blocks(io.BytesIO(content), max_s)))


def heard_s(content):
    return len(heard(content)) / RATE


def tone(seconds, rate=RATE):
    return (0.3 * np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * 440 / rate)).astype(np.float32)


def packed(name, codec, samples, *, rate=RATE, video_s=0.0, starts_s=0.0, options=None, pauses=()):
    """Encode samples into a container, perhaps beside a video, beginning late, or with pauses that no packet tells of.

    `pauses` are pairs of the second before which, and the seconds for which, nothing comes.
    """
    target = Path(
        tempfile.mkstemp()[1]
    )  # by its name: what puts its tables first opens its file a second time
    with av.open(str(target), "w", name, options=options or {}) as container:
        sound = container.add_stream(codec, rate=rate, layout="mono")
        picture = (
            container.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p") if video_s else None
        )
        if picture is not None:
            pictures = (av.VideoFrame(64, 64, "yuv420p") for _ in range(int(video_s * 5)))
            for frame in itertools.chain(pictures, [None]):
                container.mux(picture.encode(frame))
        source = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "flt", "mono")
        source.sample_rate, source.pts, source.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(sound.format, "mono", rate, sound.frame_size or FRAME)
        for frame in itertools.chain(resampler.resample(source), resampler.resample(None), [None]):
            for packet in sound.encode(frame):
                start_s = float(packet.pts * packet.time_base)
                left_out_s = starts_s + sum(length for before, length in pauses if start_s >= before)
                shift = round(left_out_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                container.mux(packet)
    content = target.read_bytes()
    target.unlink()
    return content


def box(kind, *parts):
    body = b"".join(part if isinstance(part, bytes) else struct.pack(">I", part) for part in parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def track(*tables, handler=b"soun"):
    return box(
        b"trak", box(b"mdia", box(b"hdlr", 0, 0, handler, bytes(13)), box(b"minf", box(b"stbl", *tables)))
    )


HUGE = 100_000_000
ONE_A_SAMPLE = box(b"stts", 0, 1, HUGE, 1)
ONE_CHUNK = box(b"stco", 0, 1, 100)


@pytest.mark.parametrize(
    "content",
    [
        box(b"moov", track(box(b"stsz", 0, 1, HUGE))),
        box(b"moov", track(box(b"stz2", 0, 4, HUGE))),
        box(b"moov", *[track(box(b"stsz", 0, 1, 100)) for _ in range(5)], track(box(b"stsz", 0, 1, HUGE))),
        box(b"moov", track(ONE_A_SAMPLE, ONE_CHUNK, box(b"stsc", 0, 1, 1, 0xFFFFFFFF, 1))),
        box(b"moov", track(ONE_A_SAMPLE, box(b"stsz", 0, 1, HUGE), handler=b"vide")),
        box(b"moof", box(b"traf", box(b"trun", 0, HUGE))),
        box(b"moof", *[box(b"traf", box(b"trun", 0, 200)) for _ in range(20)]),
        box(b"moov", box(b"cmov", bytes(100))),
        box(b"moov", track()) + box(b"meta", 0, box(b"stsz", 0, 1, HUGE)),
        struct.pack(">I4sQ", 1, b"moov", 16 + 20) + box(b"stsz", 0, 1, HUGE),
    ],
    ids=[
        "stsz",
        "stz2",
        "last-track",
        "chunks",
        "video",
        "fragment",
        "fragments",
        "compressed",
        "elsewhere",
        "64-bit",
    ],
)
def test_mp4_that_announces_more_samples_than_it_could_hold_is_not_opened_as_one(content):
    assert overstates(io.BytesIO(content))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("mp4", "aac", {}),
        ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
        ("mov", "pcm_s16le", {}),
        ("mov", "pcm_alaw", {}),
        ("ipod", "alac", {}),
    ],
    ids=str,
)
def test_mp4_that_is_as_it_says_is_heard(name, codec, options):
    content = packed(name, codec, tone(3), options=options)
    assert not overstates(io.BytesIO(content))
    assert heard_s(content) == pytest.approx(3, abs=0.1)


def test_what_is_no_mp4_takes_no_long_walk():
    assert not overstates(io.BytesIO(bytes(1000)))
    assert not overstates(wav(samples_of("austen-0880")))
    assert overstates(io.BytesIO(struct.pack(">I4s", 8, b"free") * 500_001))


def test_small_file_takes_little_memory_whatever_its_tables_say():
    """In a process of its own: opened as an MP4, it takes half a gigabyte (24 bytes for each of 20 million samples)."""
    content = bytearray(packed("mp4", "aac", tone(0.3)))
    sizes, chunks = content.index(b"stsz"), content.index(b"stsc")
    struct.pack_into(">II", content, sizes + 8, 1, 20_000_000)
    struct.pack_into(">I", content, chunks + 16, 20_000_000)
    code = (
        "import io, resource, sys; from speech_common import errors; from speech_common.sound import audio\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "try: audio.announced_s(io.BytesIO(sys.stdin.buffer.read()))\n"
        "except errors.UnreadableAudio: print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=bytes(content), capture_output=True, check=True)
    assert int(done.stdout) < 50_000  # kB


def test_video_may_be_longer_than_its_sound():
    content = packed("matroska", "libmp3lame", tone(2), video_s=60)
    assert heard_s(content) == pytest.approx(2, abs=0.2)
    assert announced_s(io.BytesIO(content)) == pytest.approx(60, abs=0.5)
    assert announced_s(io.BytesIO(content), 30.0) == pytest.approx(60, abs=0.5)


@pytest.mark.parametrize(("name", "codec"), [("matroska", "pcm_s16le"), ("mp4", "aac")])
def test_sound_that_begins_late_is_where_it_belongs_in_the_video(name, codec):
    samples = heard(packed(name, codec, tone(2), video_s=30, starts_s=20.0))
    assert len(samples) / RATE == pytest.approx(22, abs=0.1)
    assert np.abs(samples[: 19 * RATE]).max() == 0
    assert np.abs(samples[int(20.5 * RATE) :]).max() > 0.2


@pytest.mark.parametrize(("name", "codec"), [("matroska", "pcm_s16le"), ("webm", "libopus"), ("mp4", "aac")])
def test_pause_that_was_left_out_is_silence(name, codec):
    rate = OPUS_RATE if codec == "libopus" else RATE
    content = packed(name, codec, tone(4, rate), rate=rate, pauses=[(1.0, 5.0), (2.0, 7.0)])
    samples = heard(content)
    assert len(samples) / RATE == pytest.approx(16, abs=0.2)
    loud = [bool(np.abs(samples[second * RATE + 4000 :][:8000]).max() > 0.1) for second in range(15)]
    assert loud == [second in (0, 6, 14) for second in range(15)]


def test_pauses_of_an_ogg_count_too():
    """Its time stamps are those of its pages, a second each."""
    content = packed("ogg", "libopus", tone(4, OPUS_RATE), rate=OPUS_RATE, pauses=[(1.0, 5.0), (2.0, 7.0)])
    assert heard_s(content) == pytest.approx(16, abs=0.2)


def test_time_stamp_that_leaps_for_hours_is_no_pause():
    content = packed("matroska", "pcm_s16le", tone(4), pauses=[(2.0, 10_000.0)])
    assert heard_s(content) == pytest.approx(4, abs=0.1)


def test_pause_counts_for_the_longest_recording():
    with pytest.raises(AudioTooLong):
        heard(packed("matroska", "pcm_s16le", tone(4), pauses=[(2.0, 100.0)]), 60.0)


@pytest.mark.parametrize(
    ("name", "codec", "more"),
    [
        ("matroska", "pcm_s16le", {}),
        ("matroska", "flac", {"video_s": 20}),
        ("mp4", "aac", {"options": {"movflags": "faststart"}}),
        ("flac", "flac", {}),
    ],
    ids=["matroska", "video", "mp4", "flac"],
)
def test_recording_of_which_the_end_is_missing_is_refused(name, codec, more):
    noise = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32)
    content = packed(name, codec, noise, **more)
    assert heard_s(content) == pytest.approx(20, abs=0.2)
    with pytest.raises(TruncatedAudio):
        heard(content[: len(content) * 6 // 10])


@pytest.mark.parametrize(("name", "codec"), [("flac", "flac"), ("mp4", "aac")])
def test_packets_that_cannot_be_decoded_are_missing(name, codec):
    noise = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32)
    content = bytearray(packed(name, codec, noise))
    for place in range(len(content) // 4, len(content) // 2, 4 if name == "flac" else 100):
        content[place : place + 4] = b"\xff" * 4
    with pytest.raises(TruncatedAudio):
        heard(bytes(content))


def wav_file(*chunks):
    body = b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
    return io.BytesIO(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)


def fmt(*fields):
    return b"fmt ", struct.pack("<HHIIHH", *fields)


@pytest.mark.parametrize("told", [0, 1, 32_000 * 50])
def test_length_of_a_wav_does_not_depend_on_what_it_says_of_bytes_a_second(told):
    file = wav_file(fmt(1, 1, RATE, told, 2, 16), (b"data", bytes(2 * RATE * 3)))
    assert announced_s(file) == 3.0
    assert heard_s(file.getvalue()) == 3.0


def test_wav_of_another_codec_is_as_long_as_it_says():
    assert announced_by_wav_s(wav_file(fmt(0x11, 1, 8000, 4000, 256, 4), (b"data", bytes(8000)))) == 2.0


def test_wav_of_a_thousand_chunks_is_not_walked_to_its_end():
    class Counting(io.BytesIO):
        reads = 0

        def read(self, *args):
            self.reads += 1
            return super().read(*args)

    file = Counting(wav_file(*[(b"junk", b"")] * 20_000, fmt(1, 1, RATE, 32_000, 2, 16)).getvalue())
    assert announced_by_wav_s(file) is None
    assert file.reads < 1_100


def test_rates_and_channels_that_change_within_a_recording_are_all_heard():
    parts = [packed("adts", "aac", tone(2, rate), rate=rate) for rate in (16_000, 44_100, 16_000)]
    assert heard_s(b"".join(parts)) == pytest.approx(6, abs=0.4)


@pytest.mark.parametrize("content", [b"", b"RIFF", box(b"moov", track()), box(b"ftyp", b"M4A ", 0)])
def test_what_holds_no_sound_is_refused(content):
    with pytest.raises(UnreadableAudio):
        heard(content)
