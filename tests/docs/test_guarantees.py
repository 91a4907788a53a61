"""The page of guarantees names tests that are there, for every promise and every known failure."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guarantees.md").read_text()
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)
PROMISES = re.split(r"^### (?=\d)", PAGE.partition("## On the wire")[0], flags=re.MULTILINE)[1:]
FAILURES = re.findall(r"^\| (\d+) \|[^|]*\|(.*)\|$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("module", sorted({module for module, _ in NAMED}))
def test_every_test_that_is_named_is_there(module):
    tree = ast.parse((ROOT / "tests" / module).read_text())
    there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for other, name in NAMED if other == module} <= there


def test_every_promise_names_a_test():
    assert [promise.partition(".")[0] for promise in PROMISES] == [str(n) for n in range(1, 11)]
    assert all("::test_" in promise for promise in PROMISES)


def test_every_known_failure_names_a_test():
    assert [number for number, _ in FAILURES] == [str(n) for n in range(1, 40)]
    assert [number for number, held in FAILURES if "::test_" not in held] == []
