"""A reader of the log that has stopped stops nothing else."""

import logging
import os
import threading
from contextlib import contextmanager

import pytest
from waiting import LIMIT_S

from autostart.sink import Sink

LINES = [f"line {number} ".ljust(200, ".") for number in range(5000)]  # a pipe holds some 300 of them


@contextmanager
def piped(make=os.pipe, **options):
    """A sink into a pipe (or what else `make` makes), and the pipe's other end."""
    readable, writable = make()
    with (
        os.fdopen(readable, encoding="utf-8") as reader,
        os.fdopen(writable, "w", encoding="utf-8") as stream,
    ):
        sink = Sink(stream, **options)
        yield sink, reader
        stream.close()


def write(sink, lines):
    for line in lines:
        sink.handle(logging.makeLogRecord({"msg": line}))


def write_or_hang(sink, lines) -> bool:
    """Write in a thread; say whether it came to an end."""
    thread = threading.Thread(target=write, args=(sink, lines), daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    return not thread.is_alive()


def test_nobody_waits_for_a_reader_that_has_stopped_and_no_line_is_lost_or_out_of_order():
    with piped() as (sink, reader):
        ended = write_or_hang(sink, LINES)
        read = [reader.readline().rstrip("\n") for _ in LINES]
    assert ended
    assert read == LINES


def test_nobody_waits_for_a_terminal_that_has_stopped():
    with piped(make=os.openpty) as (sink, reader):
        ended = write_or_hang(sink, LINES)
        read = [reader.readline().rstrip("\n") for _ in LINES]
    assert ended
    assert read == LINES


def test_without_a_thread_to_be_had_lines_wait_for_the_next_one(monkeypatch):
    def start(_thread):
        raise RuntimeError("can't start new thread")

    with piped(most_bytes=20_000) as (sink, reader):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            write(sink, LINES)
        write(sink, ["next"])
        assert sink._thread.is_alive()
        read = ""
        while "were lost" not in read:
            read = reader.readline()


def test_lines_beyond_the_bound_are_lost_and_counted():
    with piped(most_bytes=20_000) as (sink, reader):
        assert write_or_hang(sink, LINES)
        read = []
        while not read or not ("were lost" in read[-1] or read[-1] == LINES[-1]):
            read.append(reader.readline().rstrip("\n"))
    kept, told = read[:-1], read[-1]
    assert kept == [line for line in LINES if line in set(kept)]
    assert told == f"{len(LINES) - len(kept)} log lines were lost: whoever reads the log had stopped"


def test_a_line_longer_than_a_pipe_takes_at_once_is_written_whole():
    long = "x" * 1_000_000
    with piped() as (sink, reader):
        assert write_or_hang(sink, [long, "next"])
        assert [reader.readline(), reader.readline()] == [f"{long}\n", "next\n"]


def test_file_that_somebody_has_made_non_blocking_gets_every_line():
    with piped() as (sink, reader):
        os.set_blocking(sink.stream.fileno(), False)
        assert write_or_hang(sink, LINES)
        assert [reader.readline().rstrip("\n") for _ in LINES] == LINES


@pytest.mark.filterwarnings("error")
def test_reader_that_has_gone_is_no_concern():
    with piped() as (sink, reader):
        reader.close()
        assert write_or_hang(sink, LINES)


def test_what_was_kept_is_written_before_the_program_ends():
    with piped() as (sink, reader):
        assert write_or_hang(sink, LINES)
        read = []
        thread = threading.Thread(target=lambda: read.extend(reader.readline() for _ in LINES))
        thread.start()
        sink.flush()
        is_written = not sink._waiting
        thread.join(LIMIT_S)
    assert is_written
    assert len(read) == len(LINES)
