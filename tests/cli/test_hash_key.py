"""`autostart hash-key`: keys are made or read from standard input, and never given as arguments."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from stand import run_command

from autostart.auth import hash_key


def run(*arguments, **options):
    return asyncio.run(run_command("hash-key", *arguments, **options))


def test_new_key_comes_with_its_hash():
    answer = run()
    told = dict(line.split(maxsplit=1) for line in answer.out.splitlines())
    assert answer.code == 0
    assert told["hash:"] == hash_key(told["key:"])


def test_every_new_key_is_another_one():
    assert run().out != run().out


def test_key_on_standard_input_is_hashed_and_not_repeated():
    answer = run("-", stdin="my-own-key\n")
    assert (answer.code, answer.out, answer.err) == (0, hash_key("my-own-key") + "\n", "")


@pytest.mark.parametrize("arguments", [["my-secret-key"], ["-", "my-secret-key"], ["my-secret-key", "two"]])
def test_key_as_an_argument_is_refused_and_not_repeated(arguments):
    answer = run(*arguments)
    assert answer.code == 2
    assert "never given as an argument" in answer.err
    assert "my-secret-key" not in answer.out + answer.err


@pytest.mark.parametrize("stdin", ["", "\n", "two words\n"])
def test_what_cannot_be_a_key_is_refused_and_not_repeated(stdin):
    answer = run("-", stdin=stdin)
    assert (answer.code, answer.out) == (2, "")
    assert "two words" not in answer.err


def test_closed_standard_input_is_no_traceback():
    command = 'exec "$0" -m autostart hash-key - <&-'
    answer = subprocess.run(["/bin/sh", "-c", command, sys.executable], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("autostart: a key consists of")


def test_output_that_cannot_be_written_is_told_in_a_line():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "autostart", "hash-key"]
        answer = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert answer.returncode == 1
    assert answer.stderr.endswith("autostart: the output could not be written: no space left\n")
    assert "Traceback" not in answer.stderr
