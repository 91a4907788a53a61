"""The list of breaks is of the code as it is, and knows every promise's test."""

import re
from collections import Counter
from pathlib import Path

import pytest
from breaking import breaks

ROOT = Path(__file__).parents[2]
GUARANTEED = set(re.findall(r"`([\w/]+\.py::\w+)`", (ROOT / "docs/guarantees.md").read_text()))
BREAKS = list(breaks())


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: f"{broken.area}: {broken.what}")
def test_break_still_fits_the_code(broken):
    assert broken.old != broken.new
    assert broken.fits(), f"{broken.file} does not hold these lines once:\n{broken.old}"
    for test in broken.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / "tests" / file).read_text()


def test_every_break_is_told_apart_and_names_a_test():
    assert Counter(broken.what for broken in BREAKS).most_common(1)[0][1] == 1
    assert all(broken.tests for broken in BREAKS)


def test_every_test_of_the_guarantees_was_seen_to_fail():
    seen = {test.partition("[")[0] for broken in BREAKS for test in broken.tests}
    assert sorted(GUARANTEED - seen) == []
