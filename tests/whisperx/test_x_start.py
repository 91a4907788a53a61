"""What the process does before anything is imported that would look."""

import os
import subprocess
import sys

import pytest

LOOK = """
import os, sys
seen = {}
sys.addaudithook(lambda event, args: event == "import" and seen.setdefault(args[0], os.environ.get("OMP_NUM_THREADS")))
from speech_common import start
start.serve = lambda *_: print(seen["numpy"], os.environ["OMP_NUM_THREADS"]) or 0
from whisperx_server.__main__ import main
main()
"""


@pytest.mark.parametrize(("workers", "threads", "wanted"), [("1", "3", "3"), ("64", "0", "1")])
def test_threads_bound_what_is_computed_beside_the_decoding(workers, threads, wanted):
    told = {"WHISPER_THREADS": threads, "WHISPER_WORKERS": workers, "PORT": "0", "OMP_NUM_THREADS": "7"}
    looked = subprocess.run(
        [sys.executable, "-c", LOOK], env=os.environ | told, capture_output=True, text=True, check=True
    )
    assert looked.stdout.split() == [wanted, wanted]
