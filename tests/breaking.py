"""Break the code on purpose, and see the tests fail that hold what was broken: `make breaks`.

`tests/breaks/*.toml` list the breaks: what would be wrong then, the lines that are taken out and what stands in
their place, and the tests that must notice. Each break is made in a copy of the tree of its own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT_S = 300
COPIED = (
    ".ci",
    "autostart",
    "services",
    "tests",
    "docs",
    "examples",
    "bench",
    "pyproject.toml",
    "config.json",
)
NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.egg-info")


@dataclass(frozen=True)
class Break:
    """One way to break the code; `tests` are `FILE::NAME` under `tests/`, each of which must fail."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    area: str

    def fits(self) -> bool:
        """Say whether the lines are still there, once."""
        return (ROOT / self.file).read_text().count(self.old) == 1


def breaks() -> Iterator[Break]:
    """Yield all breaks, in the order of the files."""
    for path in sorted((ROOT / "tests/breaks").glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["break"]:
            yield Break(**entry | {"tests": tuple(entry["tests"]), "area": path.stem})


def unnoticed(broken: Break, scratch: Path) -> list[str]:
    """Return the tests that pass although they should not, each with pytest's last line."""
    for name in COPIED:
        source, copy = ROOT / name, scratch / "main" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=NOT_COPIED)
        else:
            shutil.copy(source, copy)
    (scratch / "shared").symlink_to(ROOT.parent / "shared")
    file = scratch / "main" / broken.file
    file.write_text(file.read_text().replace(broken.old, broken.new))
    return [f"{test}: {last}" for test in broken.tests if (last := _passes(test, scratch))]


def _passes(test: str, scratch: Path) -> str:
    """Return pytest's last line where it does not end with a failed test; nothing where it does.

    An error outside the test itself proves nothing: it may be the copy that lacks something.
    """
    options = (
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "--hypothesis-profile=broken",
        f"--basetemp={scratch}/tmp",
    )
    command = [sys.executable, "-m", "pytest", *options, f"tests/{test}"]
    # The copy comes before what is installed, and what hangs because it is broken is noticed too.
    sources = (scratch / "main", *(scratch / "main/services").glob("*/src"))
    env = os.environ | {"CI": "1", "PYTHONPATH": os.pathsep.join(map(str, sources))}
    command = ["timeout", "--kill-after=10", str(LIMIT_S), *command]
    ended = subprocess.run(
        command, cwd=scratch / "main", env=env, capture_output=True, text=True, check=False
    )
    has_failed = ended.returncode == 124 or (ended.returncode == 1 and "\nFAILED " in ended.stdout)
    return "" if has_failed else (ended.stdout + ended.stderr).strip().rpartition("\n")[2]


def main(words: Sequence[str]) -> int:
    """Make each break of an area, or whose sentence has the word, in `words` (all, where there are none)."""
    failed = 0
    listed = list(breaks())
    areas = {broken.area for broken in listed}
    for broken in listed:
        if words and not any(broken.area == word if word in areas else word in broken.what for word in words):
            continue
        with tempfile.TemporaryDirectory(prefix="autostart-break-") as scratch:
            (Path(scratch) / "main").mkdir()
            passed = unnoticed(broken, Path(scratch)) if broken.fits() else ["the lines are not there"]
        print("NOT NOTICED" if passed else "noticed", f"{broken.area}: {broken.what}", flush=True)
        for line in passed:
            print(f"    {line}", flush=True)
        failed += bool(passed)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
