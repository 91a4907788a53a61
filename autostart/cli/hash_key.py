"""`autostart hash-key`: a new API key, or the hash of one that is there.

A key is never taken as an argument: it would stand in the shell's history and in the list of processes.
"""

import argparse
import getpass
import sys

from autostart import auth


def hash_key(args: argparse.Namespace) -> int:
    """Print a new key and its hash, or with `-` the hash of the key on standard input."""
    if args.source not in ([], ["-"]):
        told = "a key is never given as an argument, where others can read it; use `autostart hash-key -`"
        print(f"autostart: {told} and standard input", file=sys.stderr)
        return 2
    if not args.source:
        key = auth.generate_key()
        print(f"key:  {key}\nhash: {auth.hash_key(key)}")
        print("Keep the key, it is not shown again; the hash goes into apiKeys.", file=sys.stderr)
        return 0
    try:
        print(auth.hash_key(_given_key()))
    except ValueError as exc:
        print(f"autostart: {exc}", file=sys.stderr)
        return 2
    return 0


def _given_key() -> str:
    if sys.stdin is None:  # closed: `<&-`
        return ""
    try:
        return getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.read().strip()
    except EOFError:
        return ""
